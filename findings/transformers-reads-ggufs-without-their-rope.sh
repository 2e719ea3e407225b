#!/usr/bin/env bash
# transformers 5.23.0 with gguf 0.19.0, accelerate 1.15.0 and torch 2.13.0, Python 3.11.
#
# `from_pretrained(..., gguf_file=...)` maps the keys of a GGUF that it knows to a config and takes the class's defaults for the rest. It knows neither
# `rope.scaling.*` nor the tensor `rope_freqs.weight`, which hold the stretched positions of YaRN and of Llama 3.1 to 3.3, nor biases of attention in a Llama:
# the model loads without an error and computes another one. With the same in config.json it is right.
#
# Expected: the logits of the model that the GGUF was written from. Seen, tensors in float32, largest difference of logits:
#   plain                          the same
#   rope_freqs (llama3, factor 8)  another model
#   rope.scaling (yarn, factor 4)  another model
#   biases of attention            another model
#
# Fails when that changes. Needs python3.11 and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1
python3.11 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 gguf==0.19.0 accelerate==1.15.0
cat > "$work/look.py" <<'PYTHON'
import pathlib, sys
import torch
from gguf import GGUFWriter
from gguf.constants import RopeScalingType
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

work = pathlib.Path(sys.argv[1])
names = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}
whole = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def named(name):
    """The GGUF's name of a parameter."""
    place, _, kind = name.rpartition(".")
    return f"{whole[place]}.{kind}" if place in whole else f"blk.{place.split('.')[2]}.{names['.'.join(place.split('.')[3:])]}.{kind}"


def paired(value, heads):
    """Rows of queries and keys in the order of ggml's rotation, by neighbours."""
    return value.reshape(heads, 2, value.shape[0] // heads // 2, *value.shape[1:]).swapaxes(1, 2).reshape(value.shape)


def write(path, network):
    config = network.config
    rope = config.rope_parameters
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_type(RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if rope["rope_type"] == "llama3":
        plain = 1.0 / rope["rope_theta"] ** (torch.arange(0, config.head_dim, 2).float() / config.head_dim)
        writer.add_tensor("rope_freqs.weight", (plain / ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")[0]).numpy())
    for name, value in network.state_dict().items():
        heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads if "k_proj" in name else None
        writer.add_tensor(named(name), (value if heads is None else paired(value, heads)).contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


ids, seen = torch.arange(3, 61)[None], []
for name, changed in (
    ("plain", {}),
    ("rope_freqs (llama3, factor 8)", {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}),
    ("rope.scaling (yarn, factor 4)", {"rope_type": "yarn", "factor": 4.0}),
    ("biases of attention", {}),
):
    rope = {"rope_type": "default", "rope_theta": 10000.0, **({"original_max_position_embeddings": 32} if changed else {}), **changed}
    torch.manual_seed(0)
    network = LlamaForCausalLM(LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
        max_position_embeddings=128, initializer_range=0.3, rope_parameters=rope, attention_bias=name == "biases of attention",
    )).eval()
    for parameter in network.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, mean=float("bias" not in name), std=0.5)
    write(work / "model.gguf", network)
    read = AutoModelForCausalLM.from_pretrained(work, gguf_file="model.gguf", dtype=torch.float32)
    with torch.no_grad():
        difference = float((network(ids).logits - read(ids).logits).abs().max())
    seen.append("the same" if difference < 0.001 else "another model" if difference > 0.1 else f"{difference:.4f}")
    print(f"{name:30} {seen[-1]}")
sys.exit(seen != ["the same", *["another model"] * 3])
PYTHON
"$work/env/bin/python" -W ignore "$work/look.py" "$work" 2>/dev/null
