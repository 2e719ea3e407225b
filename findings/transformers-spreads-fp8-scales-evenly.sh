#!/usr/bin/env bash
# transformers 5.23.0 with accelerate 1.15.0 and torch 2.13.0, Python 3.11.
#
# Weights in FP8 have a scale for each block of 128 x 128, as `weight_block_size` in config.json says; where a side is no multiple of 128, the last block is
# smaller. Where there is no GPU for FP8, and with `dequantize=True`, transformers multiplies them out while it loads, and takes for a block's side that of the
# matrix divided by the number of its scales: 96 for a side of 192. Of such a matrix many numbers get the neighbour's scale, without a word. Where the division
# leaves a rest, as of DeepSeek-V3's `kv_a_proj_with_mqa` with its 576 rows and 5 scales, the model is refused.
#
# Expected: number times scale of its block of 128 x 128. Seen, for square matrices of a Llama:
#   side   scales   numbers that are wrong
#    128     1 x 1   0.0 %
#    192     2 x 2   30.6 %
#    384     3 x 3   0.0 %
#    448     4 x 4   38.3 %
#    576     5 x 5   RuntimeError
#
# Fails when that changes. Needs python3.11 and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 CUDA_VISIBLE_DEVICES=
python3.11 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check transformers==5.23.0 accelerate==1.15.0 torch==2.13.0
cat > "$work/look.py" <<'PYTHON'
import json, pathlib, sys
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

work = pathlib.Path(sys.argv[1])
block, name = 128, "model.layers.0.mlp.up_proj.weight"
expected = {128: "0.0 %", 192: "30.6 %", 384: "0.0 %", 448: "38.3 %", 576: "RuntimeError"}
found = {}
for side in expected:
    torch.manual_seed(0)
    folder, heads, count = work / str(side), side // 64, -(-side // block)
    config = LlamaConfig(vocab_size=64, hidden_size=side, intermediate_size=side, num_hidden_layers=1, num_attention_heads=heads, num_key_value_heads=heads)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    for matrix in [key for key in weights if key.endswith("_proj.weight")]:
        weights[matrix] = torch.randint(1, 16, (side, side)).to(torch.float8_e4m3fn)
        weights[f"{matrix}_scale_inv"] = torch.exp2(-torch.arange(count * count).reshape(count, count).float())  # each block has one of its own
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    said = json.loads((folder / "config.json").read_text())
    said["quantization_config"] = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [block, block]}
    (folder / "config.json").write_text(json.dumps(said))
    scales = weights[f"{name}_scale_inv"].repeat_interleave(block, 0).repeat_interleave(block, 1)[:side, :side]
    right = (weights[name].float() * scales).to(torch.bfloat16)
    try:
        read = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).state_dict()[name]
        found[side] = f"{100 * (read != right).float().mean():.1f} %"
    except RuntimeError as error:
        found[side] = type(error).__name__
    print(f"{side:6} {count:5} x {count} {'':2}{found[side]}")
sys.exit(found != expected)
PYTHON
"$work/env/bin/python" -W ignore "$work/look.py" "$work" 2> "$work/log" || { cat "$work/log"; exit 1; }
