"""Tiny random models of architectures that have layers for multi-token prediction (NextN), with the byte-level vocabulary of GPT-2, which llama.cpp knows."""

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from gguf import GGUFReader
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from engines import toolchain

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "[gMASK]", "<|user|>", "<|observation|>")
HIDDEN, CONTEXT = 64, 1024


def glm(out: Path, *, predicts: bool = True) -> Path:
    """A mixture of experts of GLM 4.5's kind with one such layer behind its two, in `model.layers.2`; without it where only config.json `predicts`.

    It holds embeddings and an output matrix of its own, copies of the model's. transformers does not load that layer, and saves none.
    """
    mixture = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1}
    config = transformers.Glm4MoeConfig(**_common(byte_level(out)), **mixture, num_hidden_layers=2, moe_intermediate_size=HIDDEN, head_dim=16)
    _save(transformers.Glm4MoeForCausalLM, config, out)
    _announce(out, num_nextn_predict_layers=1)
    if predicts:
        _add_layer(
            out,
            like="model.layers.1.",
            place="model.layers.2.",
            norms=[f"model.layers.2.{n}" for n in ("enorm", "hnorm", "shared_head.norm")],
            joins="model.layers.2.eh_proj",
            copies=("model.layers.2.embed_tokens", "model.layers.2.shared_head.head"),
        )
    return out


def qwen3_next(out: Path, *, predicts: bool = True) -> Path:
    """A hybrid of Qwen3-Next's kind: its layer for multi-token prediction is in `mtp.`, and config.json says nothing of it."""
    mixture = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": HIDDEN, "shared_expert_intermediate_size": HIDDEN}
    linear = {f"linear_{name}": size for name, size in (("key_head_dim", 16), ("value_head_dim", 16), ("num_key_heads", 2), ("num_value_heads", 4))}
    config = transformers.Qwen3NextConfig(**_common(byte_level(out)), **mixture, **linear, num_hidden_layers=4, head_dim=16)
    _save(transformers.Qwen3NextForCausalLM, config, out)
    if predicts:
        _add_layer(
            out,
            like="model.layers.3.",
            place="mtp.layers.0.",
            norms=[f"mtp.{n}" for n in ("pre_fc_norm_embedding", "pre_fc_norm_hidden", "norm")],
            joins="mtp.fc",
        )
    return out


def _add_layer(out: Path, *, like: str, place: str, norms: Iterable[str], joins: str, copies: Iterable[str] = ()) -> None:
    """A copy of a layer at another place, with norms, the matrix that joins a token's embedding with what stands before it, and copies of the embeddings."""
    weights = load_file(out / "model.safetensors")
    layer = {name.replace(like, place): value.clone() for name, value in weights.items() if name.startswith(like)}
    layer |= {f"{name}.weight": torch.ones(HIDDEN, dtype=torch.bfloat16) for name in norms}
    layer[f"{joins}.weight"] = torch.randn(HIDDEN, 2 * HIDDEN).mul(0.02).to(torch.bfloat16)
    layer |= {f"{name}.weight": weights["model.embed_tokens.weight"].clone() for name in copies}
    save_file(weights | layer, out / "model.safetensors", metadata={"format": "pt"})


def byte_level(out: Path) -> Any:
    """The vocabulary of GPT-2 as llama.cpp distributes it, with the special tokens that converters look for, also saved in a folder."""
    tokenizer = _byte_level()
    tokenizer.save_pretrained(out)
    return tokenizer


@cache
def _byte_level() -> Any:
    fields = GGUFReader(toolchain.sources() / "models" / "ggml-vocab-gpt-2.gguf").fields
    tokens, merges = (fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "merges"))
    tokenizer = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=[tuple(merge.split(" ")) for merge in merges]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    whole = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    whole.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    return whole


def _common(tokenizer: Any) -> dict[str, Any]:
    sizes = {"hidden_size": HIDDEN, "intermediate_size": HIDDEN, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT}
    ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    return {**sizes, **ids, "vocab_size": len(tokenizer), "tie_word_embeddings": True}


def _save(kind: Any, config: Any, out: Path) -> None:
    torch.manual_seed(0)
    kind(config).to(torch.bfloat16).save_pretrained(out)


def _announce(out: Path, **keys: int) -> None:
    """Set keys of config.json that transformers does not write."""
    file = out / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | keys), encoding="utf-8")
