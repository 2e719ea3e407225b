#!/usr/bin/env bash
# transformers 5.23.0 with compressed-tensors 0.20.0, accelerate 1.15.0 and torch 2.13.0, Python 3.11.
#
# Folders of compressed-tensors (llm-compressor) may hold groups of layers in different forms, as `config_groups` in config.json says: 8 bits for attention and
# 4 for the rest, for instance. Loaded as it is, each layer is read by its own group. Loaded with `CompressedTensorsConfig(dequantize=True)`, for tuning or for
# another format, all are unpacked by the first group: of 8 bits each half is taken for a number of 4. Shapes fit, and nothing is said.
#
# Expected: the same numbers both ways. Seen, for a Llama whose first group is mlp in 4 bits, and whose second is attention in 8:
#             as it is   dequantize=True
#   up_proj   right      right
#   q_proj    right      wrong
#
# Fails when that changes. Needs python3.11 and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1
python3.11 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check transformers==5.23.0 compressed-tensors==0.20.0 accelerate==1.15.0 torch==2.13.0
cat > "$work/look.py" <<'PYTHON'
import json, pathlib, sys
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, CompressedTensorsConfig, LlamaConfig, LlamaForCausalLM

work = pathlib.Path(sys.argv[1])
GROUP = 32  # numbers of a row that share a scale
torch.manual_seed(0)
config = LlamaConfig(vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2)
LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(work)
weights, right = load_file(work / "model.safetensors"), {}
for name in [name for name in weights if name.endswith("_proj.weight")]:
    bits = 4 if ".mlp." in name else 8
    rows, columns = weights.pop(name).shape
    numbers = torch.randint(0, 2**bits, (rows, columns))
    scales = torch.exp2(-torch.randint(bits, bits + 4, (rows, columns // GROUP)).float()).to(torch.bfloat16)
    places = torch.arange(0, 32, bits)
    packed = (numbers.reshape(rows, -1, 32 // bits) << places).sum(-1)
    weights[f"{name}_packed"] = torch.where(packed < 2**31, packed, packed - 2**32).to(torch.int32)
    weights[f"{name}_scale"], weights[f"{name}_shape"] = scales, torch.tensor([rows, columns])
    right[name] = ((numbers - 2 ** (bits - 1)).float() * scales.float().repeat_interleave(GROUP, 1)).to(torch.bfloat16)
save_file(weights, work / "model.safetensors", metadata={"format": "pt"})
groups = {}
for part, bits in (("mlp", 4), ("self_attn", 8)):
    form = {"num_bits": bits, "type": "int", "symmetric": True, "strategy": "group", "group_size": GROUP}
    groups[f"group_{len(groups)}"] = {"targets": [f"re:.*{part}.*"], "weights": form}
said = json.loads((work / "config.json").read_text())
said["quantization_config"] = {"quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed", "config_groups": groups,
                               "ignore": ["lm_head"]}
(work / "config.json").write_text(json.dumps(said))

found = {}
for way, options in (("as it is", {}), ("dequantize=True", {"quantization_config": CompressedTensorsConfig(dequantize=True)})):
    network = AutoModelForCausalLM.from_pretrained(work, dtype=torch.bfloat16, **options)
    with torch.inference_mode():
        network(torch.tensor([[3, 4, 5]]))  # at which layers are unpacked that were loaded as they are
    held = network.state_dict()
    for part in ("mlp.up_proj", "self_attn.q_proj"):
        name = f"model.layers.0.{part}.weight"
        found[part, way] = "right" if torch.equal(held[name], right[name]) else "wrong"
for part in ("mlp.up_proj", "self_attn.q_proj"):
    print(part.rpartition(".")[2].ljust(9), *(told.ljust(10) for (where, _), told in found.items() if where == part))
sys.exit([name for name, told in found.items() if told == "wrong"] != [("self_attn.q_proj", "dequantize=True")])
PYTHON
"$work/env/bin/python" -W ignore "$work/look.py" "$work" 2> "$work/log" || { cat "$work/log"; exit 1; }
