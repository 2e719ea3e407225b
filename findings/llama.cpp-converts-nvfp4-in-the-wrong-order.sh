#!/usr/bin/env bash
# convert_hf_to_gguf.py of llama.cpp as in llama-cpp-python 0.3.36, transformers 5.23.0, torch 2.13.0, sentencepiece 0.2.3, tokenizers 0.23.3, Python 3.11.
#
# Rotary embeddings of Llama's kind pair a head's first half with its second in safetensors, and neighbours in llama.cpp: the converter brings rows of query and
# key projections into that order. Weights in NVFP4 it passes on as they are, around the code that does so. For `LlamaForCausalLM` and its subclasses the order
# is made there once more; for others of the same rotation it is not: DeciLM (Nemotron Super, which is published in NVFP4), InternLM 3, MiniCPM. Their
# queries and keys are another model's, without a word.
#
# Expected: the same numbers in the file made of NVFP4 and in the one made of the same model in bfloat16. Seen:
#                          attn_q             attn_k             attn_v      ffn_down
#   LlamaForCausalLM       same               same               same        same
#   DeciLMForCausalLM      order of upstream  order of upstream  same        same
#   InternLM3ForCausalLM   order of upstream  order of upstream  same        same
#   MiniCPMForCausalLM     order of upstream  order of upstream  same        same
#
# Fails when that changes. Needs python3.11 and a package index; compiles nothing.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1
python3.11 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 tokenizers==0.23.3 sentencepiece==0.2.3 \
    protobuf==7.36.2 scikit-build-core==1.1.2 pyproject-metadata==0.12.1 cmake==4.4.4
"$work/env/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: --no-build-isolation --dest "$work" \
    llama-cpp-python==0.3.36
tar -xzf "$work"/llama_cpp_python-0.3.36.tar.gz -C "$work"
cat > "$work/look.py" <<'PYTHON'
import io, json, pathlib, subprocess, sys
import sentencepiece
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models

work = pathlib.Path(sys.argv[1])
llama = work / "llama_cpp_python-0.3.36/vendor/llama.cpp"
sys.path.insert(0, str(llama / "gguf-py"))
from gguf import GGUFReader
from gguf.quants import dequantize

vocabulary = io.BytesIO()
sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(f"word{number} of a text" for number in range(200)), model_writer=vocabulary, vocab_size=300,
                                         model_type="bpe", byte_fallback=True, minloglevel=2, hard_vocab_limit=False)
pieces = sentencepiece.SentencePieceProcessor(model_proto=vocabulary.getvalue())
tokenizer = Tokenizer(models.BPE({pieces.IdToPiece(number): number for number in range(pieces.vocab_size())}, [], unk_token="<unk>", byte_fallback=True))
tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])

size, width, inner, heads, pairs = pieces.vocab_size(), 64, 256, 4, 2
shape = dict(vocab_size=size, hidden_size=width, intermediate_size=inner, num_hidden_layers=1, num_attention_heads=heads, num_key_value_heads=pairs,
             max_position_embeddings=256, rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=False)
block = {"attention": {"n_heads_in_group": heads // pairs, "replace_with_linear": False}, "ffn": {"ffn_mult": 1.0}}
kinds = {
    "LlamaForCausalLM": {"model_type": "llama"},
    "DeciLMForCausalLM": {"model_type": "nemotron-nas", "block_configs": [block]},
    "InternLM3ForCausalLM": {"model_type": "internlm3"},
    "MiniCPMForCausalLM": {"model_type": "minicpm", "scale_emb": 12, "scale_depth": 1.4, "dim_model_base": 32},
}
nvfp4 = {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"],
         "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "float", "group_size": 16}, "targets": ["Linear"]}}}
e2m1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
torch.manual_seed(0)
plain = {name: torch.randn(size, width).to(torch.bfloat16) for name in ("model.embed_tokens.weight", "lm_head.weight")}
plain |= {f"model.{name}.weight": torch.ones(width) for name in ("norm", "layers.0.input_layernorm", "layers.0.post_attention_layernorm")}
packed, keys = dict(plain), width // heads * pairs
matrices = {"self_attn.q_proj": (width, width), "self_attn.k_proj": (keys, width), "self_attn.v_proj": (keys, width), "self_attn.o_proj": (width, width),
            "mlp.gate_proj": (inner, width), "mlp.up_proj": (inner, width), "mlp.down_proj": (width, inner)}
for name, (rows, columns) in matrices.items():
    codes = torch.randint(0, 16, (rows, columns), dtype=torch.uint8)
    scales = torch.randint(1, 16, (rows, columns // 16)).to(torch.float8_e4m3fn)
    numbers = torch.cat((e2m1, -e2m1))[codes.int()]
    place = f"model.layers.0.{name}"
    plain[f"{place}.weight"] = (numbers * scales.float().repeat_interleave(16, 1)).to(torch.bfloat16)  # exactly: a product has seven bits at most
    packed |= {f"{place}.weight": codes[:, ::2] | codes[:, 1::2] << 4, f"{place}.weight_scale": scales}
    packed |= {f"{place}.weight_scale_2": torch.tensor(1.0), f"{place}.input_scale": torch.tensor(1.0)}


def converted(kind, weights, said):
    folder = work / kind / ("packed" if said else "plain")
    folder.mkdir(parents=True)
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"architectures": [kind], **kinds[kind], **shape, **said}))
    (folder / "tokenizer.model").write_bytes(vocabulary.getvalue())
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"}))
    command = [sys.executable, llama / "convert_hf_to_gguf.py", folder, "--outtype", "f32", "--outfile", folder / "model.gguf"]
    if (ended := subprocess.run(command, capture_output=True, text=True)).returncode:
        sys.exit(ended.stderr)
    return {tensor.name: torch.tensor(dequantize(tensor.data, tensor.tensor_type)) for tensor in GGUFReader(folder / "model.gguf").tensors}


names = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "ffn_down": "mlp.down_proj"}
found = {}
for kind in kinds:
    right, seen = converted(kind, plain, {}), converted(kind, packed, {"quantization_config": nvfp4})
    found[kind] = []
    for name, upstream in names.items():
        value, whole = seen[f"blk.0.{name}.weight"], right[f"blk.0.{name}.weight"]
        unturned = torch.equal(value, plain[f"model.layers.0.{upstream}.weight"].float())
        found[kind].append("same" if torch.equal(value, whole) else "order of upstream" if unturned else "other numbers")
    print(kind.ljust(22), *(told.ljust(18) for told in found[kind]))
other = ["order of upstream", "order of upstream", "same", "same"]
sys.exit(found != {kind: ["same"] * 4 if kind == "LlamaForCausalLM" else other for kind in kinds})
PYTHON
"$work/env/bin/python" -W ignore "$work/look.py" "$work" 2> "$work/log" || { cat "$work/log"; exit 1; }
