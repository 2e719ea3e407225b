#!/usr/bin/env bash
# transformers 5.23.0 with accelerate 1.15.0 and torch 2.13.0, Python 3.11.
#
# Whoever wants a release in FP8 in 16 bits, to tune or convert it, loads it with `FineGrainedFP8Config(dequantize=True)`, which takes `quantization_config`
# out of the model, and saves it. `save_pretrained` undoes what loading did to weights: all matrices that blocks of 128 x 128 fit become FP8 once more, with
# scales, embeddings and output matrix as well, which were in 16 bits. In config.json nothing says so. Loading that folder gives FP8 numbers without their
# scales, a model that writes nonsense; the scales stand in a table among the warnings, as unexpected.
#
# Expected: a folder in bfloat16 that is read as the model that was saved. Seen:
#                            release    in memory   saved      read again
#   embed_tokens.weight      BF16       bfloat16    F8_E4M3    bfloat16
#   up_proj.weight           F8_E4M3    bfloat16    F8_E4M3    bfloat16
#   norm.weight              BF16       bfloat16    BF16       bfloat16
#   lm_head.weight           BF16       bfloat16    F8_E4M3    bfloat16
#   quantization_config      True       False       False      False
#   largest of up_proj       -          0.1         -          448.0
#
# Fails when that changes. Needs python3.11 and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1
python3.11 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check transformers==5.23.0 accelerate==1.15.0 torch==2.13.0
cat > "$work/look.py" <<'PYTHON'
import json, pathlib, sys
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, FineGrainedFP8Config, LlamaConfig, LlamaForCausalLM

work = pathlib.Path(sys.argv[1])
UP = "model.layers.0.mlp.up_proj.weight"
NAMES = ("model.embed_tokens.weight", UP, "model.norm.weight", "lm_head.weight")
KEY = "quantization_config"


def stored(folder):
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        types = [file.get_slice(name).get_dtype() for name in NAMES]
    return [*types, KEY in json.loads((folder / "config.json").read_text()), "-"]


def held(network):
    weights = network.state_dict()
    return [*(str(weights[name].dtype).removeprefix("torch.") for name in NAMES), hasattr(network.config, KEY), round(float(weights[UP].abs().max()), 1)]


torch.manual_seed(0)
release, saved = work / "release", work / "saved"
config = LlamaConfig(vocab_size=256, hidden_size=128, intermediate_size=256, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2)
LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(release)
weights = load_file(release / "model.safetensors")
for name in [name for name in weights if name.endswith("_proj.weight")]:
    rows, columns = weights[name].shape
    blocks = weights[name].float().reshape(rows // 128, 128, columns // 128, 128)
    scales = blocks.abs().amax(dim=(1, 3)) / 448
    weights[name] = (blocks / scales[:, None, :, None]).reshape(rows, columns).to(torch.float8_e4m3fn)
    weights[f"{name}_scale_inv"] = scales
save_file(weights, release / "model.safetensors", metadata={"format": "pt"})
said = json.loads((release / "config.json").read_text())
said[KEY] = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
(release / "config.json").write_text(json.dumps(said))

network = AutoModelForCausalLM.from_pretrained(release, quantization_config=FineGrainedFP8Config(dequantize=True), dtype=torch.bfloat16)
network.save_pretrained(saved)
found = [stored(release), held(network), stored(saved), held(AutoModelForCausalLM.from_pretrained(saved))]
told = [name.removeprefix("model.").removeprefix("layers.0.mlp.") for name in NAMES] + [KEY, "largest of up_proj"]
for name, *row in zip(told, *found, strict=True):
    print(name.ljust(24), *(str(item).ljust(10) for item in row))
sys.exit(found != [
    ["BF16", "F8_E4M3", "BF16", "BF16", True, "-"],
    ["bfloat16", "bfloat16", "bfloat16", "bfloat16", False, 0.1],
    ["F8_E4M3", "F8_E4M3", "BF16", "F8_E4M3", False, "-"],
    ["bfloat16", "bfloat16", "bfloat16", "bfloat16", False, 448.0],
])
PYTHON
"$work/env/bin/python" -W ignore "$work/look.py" "$work" 2> "$work/log" || { cat "$work/log"; exit 1; }
