#!/usr/bin/env bash
# transformers 5.23.0 with tokenizers 0.23.3, Python 3.11.
#
# A folder whose tokenizer_config.json says `"tokenizer_class": "GPT2Tokenizer"` is not read as its tokenizer.json says: AutoTokenizer takes vocabulary and
# merges from there and builds the rest anew as GPT-2 has it. A pre-tokenizer that splits digits, as real models of that class have, is dropped, without a
# word. With `"tokenizer_class": "PreTrainedTokenizerFast"` the same file is read as it stands.
#
# Expected: one answer, that of tokenizer.json. Seen, for the text "12":
#   tokenizer.json            ['1', '2']
#   GPT2Tokenizer             ['12']
#   PreTrainedTokenizerFast   ['1', '2']
#
# Fails when that changes. Needs python3.11 and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3.11 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check transformers==5.23.0 tokenizers==0.23.3
cat > "$work/look.py" <<'PYTHON'
import json, sys, pathlib
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer

folder = pathlib.Path(sys.argv[1])
bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
vocabulary = {piece: number for number, piece in enumerate([*bytes_, "12", "<|end|>"])}
made = Tokenizer(models.BPE(vocab=vocabulary, merges=[("1", "2")]))
made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
made.decoder = decoders.ByteLevel()
seen = {}
for name in ("GPT2Tokenizer", "PreTrainedTokenizerFast"):
    place = folder / name
    place.mkdir()
    made.save(str(place / "tokenizer.json"))
    special = {"eos_token": "<|end|>", "bos_token": "<|end|>", "unk_token": "<|end|>"}
    (place / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name, **special}))
    (place / "config.json").write_text(json.dumps({"model_type": "llama"}))
    seen["tokenizer.json"] = Tokenizer.from_file(str(place / "tokenizer.json")).encode("12").tokens
    read = AutoTokenizer.from_pretrained(place)
    seen[name] = read.convert_ids_to_tokens(read("12", add_special_tokens=False)["input_ids"])
for name, tokens in seen.items():
    print(f"{name:25} {tokens}")
sys.exit(seen != {"tokenizer.json": ["1", "2"], "GPT2Tokenizer": ["12"], "PreTrainedTokenizerFast": ["1", "2"]})
PYTHON
HF_HUB_OFFLINE=1 "$work/env/bin/python" "$work/look.py" "$work"
