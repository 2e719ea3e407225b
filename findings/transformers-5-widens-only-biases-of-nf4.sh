#!/usr/bin/env bash
# transformers 5.23.0 with bitsandbytes 0.50.2, accelerate 1.15.0 and torch 2.13.0, Python 3.11.
#
# Whoever compares a quantized model with its original loads both with `dtype=torch.float32`, so that nothing but the weights differs. Of an NF4 folder that is
# said in bfloat16, only what is called `bias` becomes float32; embeddings, norms and the output matrix stay in bfloat16, and nothing says so. A Llama is computed
# in bfloat16, where the original beside it is not; a model with biases loads, and raises at its first token.
#
# Expected: float32 throughout, as of the same folder in 16 bits. Seen:
#   folder               float32                       bfloat16                    logits
#   llama, 16 bits       norm.weight, weight           nothing                     float32
#   llama, NF4           nothing                       norm.weight, weight         bfloat16
#   starcoder2, 16 bits  all                           nothing                     float32
#   starcoder2, NF4      bias, norm.bias               norm.weight, weight         RuntimeError: expected scalar type BFloat16 but found Float
#
# Fails when that changes. Needs python3.11 and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1
python3.11 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check transformers==5.23.0 bitsandbytes==0.50.2 accelerate==1.15.0 torch==2.13.0
cat > "$work/look.py" <<'PYTHON'
import pathlib, sys
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, Starcoder2Config

work = pathlib.Path(sys.argv[1])
sizes = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
raised = "RuntimeError: expected scalar type BFloat16 but found Float"
expected = {
    "llama 16": (["norm.weight", "weight"], [], "float32"),
    "llama nf4": ([], ["norm.weight", "weight"], "bfloat16"),
    "starcoder2 16": (["bias", "norm.bias", "norm.weight", "weight"], [], "float32"),
    "starcoder2 nf4": (["bias", "norm.bias"], ["norm.weight", "weight"], raised),
}
found = {}
for config in (LlamaConfig(**sizes), Starcoder2Config(**sizes, bos_token_id=1, eos_token_id=2)):
    torch.manual_seed(0)
    plain, packed = work / config.model_type / "16", work / config.model_type / "nf4"
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(plain)
    AutoModelForCausalLM.from_pretrained(plain, quantization_config=settings, dtype=torch.bfloat16, device_map="cpu").save_pretrained(packed)
    for folder in (plain, packed):
        network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, device_map="cpu")
        kinds = {torch.float32: set(), torch.bfloat16: set(), torch.uint8: set()}
        for name, value in network.named_parameters():
            kinds[value.dtype].add(("norm." if "norm" in name else "") + name.rpartition(".")[2])
        try:
            with torch.inference_mode():
                seen = str(network(torch.tensor([[3, 4, 5]])).logits.dtype).removeprefix("torch.")
        except RuntimeError as error:
            seen = f"RuntimeError: {error}"
        found[f"{config.model_type} {folder.name}"] = (sorted(kinds[torch.float32]), sorted(kinds[torch.bfloat16]), seen)
for name, told in found.items():
    print(name.ljust(16), *told, sep="  ")
sys.exit(found != expected)
PYTHON
"$work/env/bin/python" "$work/look.py" "$work" 2> "$work/log" || { cat "$work/log"; exit 1; }
