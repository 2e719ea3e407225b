#!/usr/bin/env bash
# transformers 5.23.0 and 4.57.6 with bitsandbytes 0.50.2, accelerate 1.15.0 and torch 2.13.0, Python 3.11.
#
# `llm_int8_skip_modules` lists what stays in 16 bits when a model is quantized to NF4, and tells a reader which weights of the folder are. transformers 4.57
# looks for a listed name anywhere in a module's name, as a whole part of it; 5 looks at the beginning, as a regular expression, and at the end. So the same
# list means other layers, and lists of parts, as published repos have them, fit one of the two only: a folder of the one is a wrong folder to the other. Only
# full names mean the same to both. A list also takes the place of the default one: `lm_head`, kept unless something is listed, is quantized by both.
#
# Expected: the same layers. Seen, for a Llama:
#   listed                4.57.6                           5.23.0
#   nothing               lm_head                          lm_head
#   mlp                   down_proj, gate_proj, up_proj    nothing
#   self_attn.o_proj      nothing                          o_proj
#   model.layers.0.mlp    down_proj, gate_proj, up_proj    down_proj, gate_proj, up_proj
#   with `mlp`, saved by 4.57.6 and read by 5.23.0: AssertionError at the first token
#
# Fails when that changes. Needs python3.11 and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1
python3.11 -m venv "$work/5.23.0"
"$work/5.23.0/bin/python" -m pip install --quiet --disable-pip-version-check transformers==5.23.0 bitsandbytes==0.50.2 accelerate==1.15.0 torch==2.13.0
python3.11 -m venv "$work/4.57.6"
"$work/4.57.6/bin/python" -m pip install --quiet --disable-pip-version-check transformers==4.57.6
ls -d "$work"/5.23.0/lib/python3.11/site-packages > "$work/4.57.6/lib/python3.11/site-packages/rest.pth"  # torch and bitsandbytes are large
cat > "$work/look.py" <<'PYTHON'
import json, pathlib, sys
import torch, transformers
from bitsandbytes.nn import Linear4bit
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

work = pathlib.Path(sys.argv[1])
if not (work / "model").exists():
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2
    )).save_pretrained(work / "model")
seen = {"version": transformers.__version__}
for listed in (None, "mlp", "self_attn.o_proj", "model.layers.0.mlp"):
    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", llm_int8_skip_modules=None if listed is None else [listed])
    network = AutoModelForCausalLM.from_pretrained(work / "model", quantization_config=settings, dtype=torch.bfloat16, device_map="cpu")
    linear = {name.rpartition(".")[2]: isinstance(module, Linear4bit) for name, module in network.named_modules() if isinstance(module, torch.nn.Linear)}
    seen[listed or "nothing"] = ", ".join(sorted(name for name, packed in linear.items() if not packed)) or "nothing"
    if listed == "mlp":
        network.save_pretrained(work / seen["version"])
if len(sys.argv) > 2:
    network = AutoModelForCausalLM.from_pretrained(work / sys.argv[2], device_map="cpu")
    try:
        network(torch.tensor([[3, 4, 5]]))
        seen["read"] = "computes"
    except Exception as error:
        seen["read"] = type(error).__name__
(work / f"{seen['version']}.json").write_text(json.dumps(seen))
PYTHON
"$work/4.57.6/bin/python" -W ignore "$work/look.py" "$work" >"$work/log" 2>&1
"$work/5.23.0/bin/python" -W ignore "$work/look.py" "$work" 4.57.6 >>"$work/log" 2>&1
python3.11 - "$work" <<'PYTHON'
import json, pathlib, sys

old, new = (json.loads((pathlib.Path(sys.argv[1]) / f"{version}.json").read_text()) for version in ("4.57.6", "5.23.0"))
for listed in ("nothing", "mlp", "self_attn.o_proj", "model.layers.0.mlp"):
    print(f"{listed:21} {old[listed]:32} {new[listed]}")
print(f"with `mlp`, saved by {old['version']} and read by {new['version']}: {new['read']} at the first token")
whole = "down_proj, gate_proj, up_proj"
sys.exit(
    [old[name] for name in ("nothing", "mlp", "self_attn.o_proj", "model.layers.0.mlp")] != ["lm_head", whole, "nothing", whole]
    or [new[name] for name in ("nothing", "mlp", "self_attn.o_proj", "model.layers.0.mlp")] != ["lm_head", "nothing", "o_proj", whole]
    or new["read"] != "AssertionError"
)
PYTHON
