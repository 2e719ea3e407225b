#!/usr/bin/env bash
# convert_hf_to_gguf.py --mmproj of llama.cpp as in llama-cpp-python 0.3.36, transformers 5.23.0, torch 2.13.0, Python 3.11.
#
# Projectors of models as transformers saves them. Of Pixtral's and Mistral 3's form the converter passes over every tensor with `language_model.` in its name
# before it looks for the embedding of [IMG_BREAK] among them, so `v.token_embd.img_break` is missing and llama.cpp does not load the file
# (https://github.com/ggml-org/llama.cpp/issues/22901). Of InternVL's form it looks for `model.vision_tower`, while transformers saves `vision_tower`: the file has
# no tensor at all. Neither is said: both conversions end with exit code 0.
#
# Expected: projectors, or a refusal. Seen:
#   LlavaForConditionalGeneration (Pixtral)   no v.token_embd.img_break
#   Mistral3ForConditionalGeneration          no v.token_embd.img_break
#   InternVLForConditionalGeneration          no tensors
#
# Fails when that changes. Needs python3.11 and a package index; compiles nothing.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3.11 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 sentencepiece==0.2.3 protobuf==7.36.2 \
    scikit-build-core==1.1.2 pyproject-metadata==0.12.1 cmake==4.4.4
"$work/env/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: --no-build-isolation --dest "$work" \
    llama-cpp-python==0.3.36
tar -xzf "$work"/llama_cpp_python-0.3.36.tar.gz -C "$work"
cat > "$work/look.py" <<'PYTHON'
import json, pathlib, subprocess, sys
import torch
import transformers

work = pathlib.Path(sys.argv[1])
sources = work / "llama_cpp_python-0.3.36/vendor/llama.cpp"
sys.path.insert(0, str(sources / "gguf-py"))
import gguf

text = dict(vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2)
eyes = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=2, patch_size=14)
pixtral = {"vision_config": eyes | {"model_type": "pixtral", "head_dim": 16, "image_size": 1540, "hidden_act": "silu"}, "image_token_index": 10}
cases = {
    "Llava": (pixtral | {"text_config": text | {"model_type": "llama"}, "vision_feature_layer": -1}, "no v.token_embd.img_break"),
    "Mistral3": (pixtral | {"text_config": text | {"model_type": "mistral"}}, "no v.token_embd.img_break"),
    "InternVL": (
        {"text_config": text | {"model_type": "qwen2"}, "vision_config": eyes | {"image_size": [56, 56], "architectures": ["InternVisionModel"]}},
        "no tensors",
    ),
}
held = True
for kind, (config, expected) in cases.items():
    folder, file = work / kind, work / f"{kind}.gguf"
    name = f"{kind}ForConditionalGeneration"
    getattr(transformers, name)(getattr(transformers, f"{kind}Config")(**config)).to(torch.bfloat16).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": {"12": {"content": "[IMG_BREAK]"}}}))
    command = [sys.executable, sources / "convert_hf_to_gguf.py", folder, "--mmproj", "--outtype", "bf16", "--outfile", file]
    subprocess.run(command, check=True, capture_output=True)
    tensors = {tensor.name for tensor in gguf.GGUFReader(file).tensors}
    found = "no tensors" if not tensors else "whole" if "v.token_embd.img_break" in tensors or kind == "InternVL" else "no v.token_embd.img_break"
    print(f"{name:41} {found}")
    held = held and found == expected
sys.exit(not held)
PYTHON
HF_HUB_OFFLINE=1 "$work/env/bin/python" -W ignore "$work/look.py" "$work" 2>/dev/null
