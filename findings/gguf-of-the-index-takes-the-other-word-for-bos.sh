#!/usr/bin/env bash
# gguf 0.19.0 of the Python index, the newest there, against the gguf that llama-cpp-python 0.3.36 carries in its sources beside llama.cpp's converter.
# Python 3.11.
#
# Both call themselves 0.19.0, and both read whether a text begins with BOS from a tokenizer whose two files disagree: tokenizer_config.json has
# `add_bos_token`, tokenizer.json a post-processor that puts the token there, or does not. The package of the index takes the flag; the converter's takes the
# post-processor, so that one model becomes two files, by where `import gguf` finds its package (NO_LOCAL_GGUF=1, or a script that writes headers itself).
# A post-processor of bytes alone (GPT-2's kind) says nothing of BOS to the package of the index, and to the converter's that there is none.
#
# Expected: one answer. Seen:
#                                             gguf of the index       the converter's
#   flag False, post-processor puts BOS       {'bos': False}          {'bos': True}
#   flag True, bytes alone                    {'bos': True}           {'bos': False, 'eos': False}
#   no flag, bytes alone                      {}                      {'bos': False, 'eos': False}
#
# Fails when that changes. Needs python3.11 and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3.11 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check gguf==0.19.0
"$work/env/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: --dest "$work" llama-cpp-python==0.3.36
mkdir "$work/sources"
tar --extract --gzip --file "$work"/llama_cpp_python-*.tar.gz --directory "$work/sources" --strip-components 1 --wildcards '*/vendor/llama.cpp/gguf-py/*'
cat > "$work/look.py" <<'PYTHON'
import contextlib, io, json, logging, pathlib, sys, tempfile
from gguf import SpecialVocab

logging.disable()
around = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
          "pair": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
          "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}}
bytes_ = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
for flag, processor in ((False, around), (True, bytes_), (None, bytes_)):
    with tempfile.TemporaryDirectory() as folder:
        model = pathlib.Path(folder)
        tokens = {"<s>": 0, "a": 1, "b": 2, "ab": 3}
        added = [{"id": 0, "content": "<s>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}]
        (model / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": added, "post_processor": processor,
                                                          "model": {"type": "BPE", "vocab": tokens, "merges": [["a", "b"]]}}))
        settings = {"bos_token": "<s>", "tokenizer_class": "PreTrainedTokenizerFast"} | ({} if flag is None else {"add_bos_token": flag})
        (model / "tokenizer_config.json").write_text(json.dumps(settings))
        (model / "config.json").write_text("{}")
        with contextlib.redirect_stdout(io.StringIO()):
            found = SpecialVocab(model, load_merges=True)
        print(found.add_special_token)
PYTHON
"$work/env/bin/python" "$work/look.py" > "$work/index.txt"
PYTHONPATH="$work/sources/vendor/llama.cpp/gguf-py" "$work/env/bin/python" "$work/look.py" > "$work/carried.txt"
paste "$work/index.txt" "$work/carried.txt"
diff "$work/index.txt" - <<'TEXT'
{'bos': False}
{'bos': True}
{}
TEXT
diff "$work/carried.txt" - <<'TEXT'
{'bos': True}
{'bos': False, 'eos': False}
{'bos': False, 'eos': False}
TEXT
