#!/usr/bin/env bash
# convert_lora_to_gguf.py of llama.cpp as in llama-cpp-python 0.3.36, peft 0.21.2, transformers 5.23.0, torch 2.13.0, Python 3.11.
#
# A LoRA adapter adds B·A times a factor: alpha/r, or alpha/√r where adapter_config.json says `use_rslora`, and with another alpha for the modules that
# `alpha_pattern` names. The converter takes `lora_alpha` from the file and nothing else, and llama.cpp multiplies with alpha/r: of a rank-stabilised adapter
# of rank 64 an eighth arrives, without a word.
#
# Expected: the factor that PEFT applies, or a refusal. Seen, for r=64, lora_alpha=16, alpha_pattern {"v_proj": 64}:
#                                  PEFT    GGUF (alpha/r)
#   plain                q_proj    0.25    0.25
#   use_rslora           q_proj    2.00    0.25
#   alpha_pattern        v_proj    1.00    0.25
#
# Fails when that changes. Needs python3.11 and a package index; compiles nothing.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1
python3.11 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 peft==0.21.2 \
    scikit-build-core==1.1.2 pyproject-metadata==0.12.1 cmake==4.4.4
"$work/env/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: --no-build-isolation --dest "$work" \
    llama-cpp-python==0.3.36
tar -xzf "$work"/llama_cpp_python-0.3.36.tar.gz -C "$work"
cat > "$work/look.py" <<'PYTHON'
import pathlib, subprocess, sys
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

work = pathlib.Path(sys.argv[1])
llama = work / "llama_cpp_python-0.3.36/vendor/llama.cpp"
sys.path.insert(0, str(llama / "gguf-py"))
from gguf import GGUFReader

config = LlamaConfig(vocab_size=64, hidden_size=128, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2)
LlamaForCausalLM(config).save_pretrained(work / "base")
seen = []
for name, module, tensor, options in (
    ("plain", "q_proj", "attn_q", {}),
    ("use_rslora", "q_proj", "attn_q", {"use_rslora": True}),
    ("alpha_pattern", "v_proj", "attn_v", {"alpha_pattern": {"v_proj": 64}}),
):
    adapted = get_peft_model(LlamaForCausalLM(config), LoraConfig(r=64, lora_alpha=16, target_modules=["q_proj", "v_proj"], **options))
    adapted.save_pretrained(work / name)
    applied = getattr(adapted.base_model.model.model.layers[0].self_attn, module).scaling["default"]
    command = [sys.executable, llama / "convert_lora_to_gguf.py", work / name, "--base", work / "base", "--outfile", work / f"{name}.gguf"]
    subprocess.run(command, check=True, capture_output=True)
    read = GGUFReader(work / f"{name}.gguf")
    rank = next(item for item in read.tensors if item.name == f"blk.0.{tensor}.weight.lora_b").shape[0]
    written = float(read.fields["adapter.lora.alpha"].contents()) / int(rank)
    print(f"{name:20} {module:9} {applied:.2f}    {written:.2f}")
    seen.append((applied, written))
sys.exit(seen != [(0.25, 0.25), (2.0, 0.25), (1.0, 0.25)])
PYTHON
"$work/env/bin/python" -W ignore "$work/look.py" "$work" 2>/dev/null
