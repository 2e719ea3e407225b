#!/usr/bin/env bash
# transformers 5.23.0 with gguf 0.19.0, accelerate 1.15.0 and torch 2.13.0, Python 3.11.
#
# Large GGUF files are published in parts, `NAME-00001-of-0000N.gguf`, of which programs are given the first. llama.cpp goes on to the others, which `split.count`
# in the header announces. `from_pretrained(..., gguf_file=...)` reads the part that it was given as if it were all and returns a model: matrices of the other
# parts are random, anew each time, their norms ones, and `lm_head` is taken for tied where it lies in another part. A table among the warnings lists what is
# missing, as for a classifier's new head.
#
# Expected: all weights, or an error. Seen, for a model of 21 tensors in two parts that lie side by side:
#   as written                        11
#   another at each reading            6
#   ones                               3
#   lm_head is token_embd           True
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
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

work = pathlib.Path(sys.argv[1])
names = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}
whole = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def named(name):
    """The GGUF's name of a weight."""
    place = name.removesuffix(".weight")
    return f"{whole[place]}.weight" if place in whole else f"blk.{place.split('.')[2]}.{names['.'.join(place.split('.')[3:])]}.weight"


config = LlamaConfig(vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4, head_dim=16)
network = LlamaForCausalLM(config)
for parameter in network.parameters():
    torch.nn.init.normal_(parameter)
written = network.state_dict()
writer = GGUFWriter(work / "model.gguf", "llama", split_max_tensors=11)
writer.add_context_length(256)
writer.add_embedding_length(config.hidden_size)
writer.add_block_count(config.num_hidden_layers)
writer.add_feed_forward_length(config.intermediate_size)
writer.add_head_count(config.num_attention_heads)
writer.add_head_count_kv(config.num_key_value_heads)
writer.add_layer_norm_rms_eps(config.rms_norm_eps)
writer.add_rope_freq_base(10000.0)
writer.add_rope_dimension_count(config.head_dim)
writer.add_vocab_size(config.vocab_size)
for name, value in written.items():
    if name.endswith(("q_proj.weight", "k_proj.weight")):  # rows in the order of ggml's rotation, by neighbours
        value = value.reshape(4, 2, 8, 64).swapaxes(1, 2).reshape(64, 64)
    writer.add_tensor(named(name), value.contiguous().numpy())
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
assert len(list(work.glob("*.gguf"))) == 2
one, other = (AutoModelForCausalLM.from_pretrained(work, gguf_file="model-00001-of-00002.gguf").state_dict() for _ in range(2))
same = {name for name in written if torch.equal(one[name], written[name])}
tied = torch.equal(one["lm_head.weight"], one["model.embed_tokens.weight"])
random = {name for name in written if not torch.equal(one[name], other[name])}
ones = {name for name in written if bool((one[name] == 1).all())}
print(f"as written {len(same):25}\nanother at each reading {len(random):12}\nones {len(ones):31}\nlm_head is token_embd {str(tied):>14}")
sys.exit((len(same), len(random), len(ones), tied) != (11, 6, 3, True))
PYTHON
"$work/env/bin/python" -W ignore "$work/look.py" "$work" 2>/dev/null
