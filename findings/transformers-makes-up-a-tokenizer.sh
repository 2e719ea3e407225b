#!/usr/bin/env bash
# transformers 5.23.0 and 4.57.6 with tokenizers as they want them, sentencepiece 0.2.3, Python 3.11.
#
# A folder with a config.json and no file of a vocabulary, as of merges that were uploaded without one, or of releases in a form of their makers' own. For
# several architectures AutoTokenizer of transformers 5 makes a tokenizer up there, of its special tokens alone, and says nothing: any text is no token, or one
# unknown one, and whatever is measured, calibrated or trained with it goes through.
#
# Expected: an error, as 4.57.6 raises for each. Seen, for "Hello world":
#                4.57.6     5.23.0
#   qwen2        an error   Qwen2Tokenizer of 1: []
#   qwen3        an error   Qwen2Tokenizer of 1: []
#   gemma3_text  an error   GemmaTokenizer of 5: [3]
#   gpt2         an error   GPT2Tokenizer of 1: []
#   gpt_neox     an error   GPTNeoXTokenizer of 2: []
#   llama        an error   an error
#   mistral      an error   an error
#   phi3         an error   an error
#
# Fails when that changes. Needs python3.11 and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1
cat > "$work/look.py" <<'PYTHON'
import json, pathlib, sys, tempfile
from transformers import AutoTokenizer

found = {}
for model_type in ("qwen2", "qwen3", "gemma3_text", "gpt2", "gpt_neox", "llama", "mistral", "phi3"):
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "config.json").write_text(json.dumps({"model_type": model_type}))
        try:
            made = AutoTokenizer.from_pretrained(folder)
            found[model_type] = f"{type(made).__name__} of {len(made)}: {made('Hello world')['input_ids']}"
        except Exception:
            found[model_type] = "an error"
json.dump(found, sys.stdout)
PYTHON
for version in 4.57.6 5.23.0; do
    python3.11 -m venv "$work/env"
    "$work/env/bin/python" -m pip install --quiet --disable-pip-version-check "transformers==$version" sentencepiece==0.2.3 protobuf==7.36.2
    "$work/env/bin/python" "$work/look.py" > "$work/$version.json" 2> "$work/log" || { cat "$work/log"; exit 1; }
    rm -r "$work/env"
done
python3.11 - "$work" <<'PYTHON'
import json, pathlib, sys

older, newer = (json.loads(pathlib.Path(sys.argv[1], f"{version}.json").read_text()) for version in ("4.57.6", "5.23.0"))
for model_type, made in newer.items():
    print(f"{model_type:12} {older[model_type]:10} {made}")
qwen = "Qwen2Tokenizer of 1: []"
made = {"qwen2": qwen, "qwen3": qwen, "gemma3_text": "GemmaTokenizer of 5: [3]", "gpt2": "GPT2Tokenizer of 1: []", "gpt_neox": "GPTNeoXTokenizer of 2: []"}
sys.exit(older != dict.fromkeys(newer, "an error") or newer != made | dict.fromkeys(("llama", "mistral", "phi3"), "an error"))
PYTHON
