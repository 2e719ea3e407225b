"""Tiny random models of the architectures that releases come in: what transformers saves, as a snapshot of it would lie in a folder.

Two vocabularies serve them: the bundled model's SentencePiece one, wherever an architecture's converter takes that, for it is small, and GPT-2's elsewhere.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file

from builders import convert, fixes
from builders.rebuilt import vocabulary
from engines import gguf_header, toolchain
from tests import predicting, releases

HIDDEN, CONTEXT = 64, 1024
PADDED, PADDED_LARGE = 2112, 50304  # rows of the embeddings where makers round their number up: of 2048 tokens, and of GPT-2's and some
SPREAD = 0.08  # of random weights: answers differ from token to token, and are not nearly certain
LINEAR = {f"linear_{name}": size for name, size in (("key_head_dim", 16), ("value_head_dim", 16), ("num_key_heads", 2), ("num_value_heads", 4))}

Make = Callable[[Path], Path]


def bundled(out: Path, *, spaced: bool) -> dict[str, Any]:
    """The bundled model's vocabulary, with a blank before every text where it is `spaced`; the numbers that a config.json has to say of it."""
    out.mkdir()
    for name in ("tokenizer.json", "tokenizer.model"):
        shutil.copy(releases.DEMO / name, out)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(releases.CLEAN / name, out)
    if spaced:
        normalizer = releases.read(out / "tokenizer.json")["normalizer"]
        releases.edit(out / "tokenizer.json", normalizer={"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, normalizer]})
        releases.edit(out / "tokenizer_config.json", add_prefix_space=True)
    return {"bos_token_id": 1, "eos_token_id": 4, "pad_token_id": 5, "vocab_size": 2048}


def sizes(**others: Any) -> dict[str, Any]:
    plain = {"hidden_size": HIDDEN, "intermediate_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    return {**plain, "tie_word_embeddings": True, "max_position_embeddings": CONTEXT, "initializer_range": SPREAD, **others}


def saved(kind: str, out: Path, config: Mapping[str, Any], name: str | None = None) -> Path:
    """Random weights of that kind in bfloat16, and what goes with them."""
    torch.manual_seed(0)
    made = getattr(transformers, f"{kind}Config")(**config)
    getattr(transformers, name or f"{kind}ForCausalLM")(made).to(torch.bfloat16).save_pretrained(out)
    (out / "README.md").write_text("---\nlicense: mit\n---\n# A miniature\n", encoding="utf-8")
    return out


def small(kind: str, *, name: str | None = None, spaced: bool = False, sizes: Callable[..., dict[str, Any]] = sizes, **others: Any) -> Make:
    return lambda out: saved(kind, out, sizes(**(bundled(out, spaced=spaced) | others)), name)


def _seeing(out: Path) -> Path:
    """Gemma 3 with eyes, whose pictures are four tokens."""
    # llama.cpp takes matrices as wide as high for those of old files, and exchanges the two of each layer: no such model is known, and this one is none
    eyes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 56, "patch_size": 14}
    text = sizes(**bundled(out, spaced=False), head_dim=32, query_pre_attn_scalar=32, sliding_window=512)
    ids = {"boi_token_index": 9, "eoi_token_index": 10, "image_token_index": 11, "eos_token_id": [4], "bos_token_id": 1, "pad_token_id": 5}
    made = saved(
        "Gemma3",
        out,
        {"text_config": text, "vision_config": eyes, "mm_tokens_per_image": 4, "tie_word_embeddings": True, **ids},
        "Gemma3ForConditionalGeneration",
    )
    weights = load_file(made / "model.safetensors")  # transformers leaves a part of names out that its makers' releases have
    named = {name.replace("vision_tower.", "vision_tower.vision_model."): scattered(name, value) for name, value in weights.items()}
    save_file(named, made / "model.safetensors", metadata={"format": "pt"})
    size, even = {"height": 56, "width": 56}, [0.5, 0.5, 0.5]
    described = {"image_processor_type": "Gemma3ImageProcessor", "image_seq_length": 4, "image_mean": even, "image_std": even, "size": size}
    (made / "preprocessor_config.json").write_text(json.dumps(described), encoding="utf-8")
    return made


def scattered(name: str, value: torch.Tensor) -> torch.Tensor:
    """A weight of what reads pictures, where transformers begins with nothing but noughts and ones in biases, norms and projectors."""
    if not any(part in name for part in ("vision", "visual", "multi_modal_projector", "connector")):
        return value
    return (value.float() + SPREAD * torch.randn(value.shape)).to(value.dtype)


def _large(kind: str, *, name: str | None = None, sizes: Callable[..., dict[str, Any]] = sizes, **others: Any) -> Make:
    """With GPT-2's vocabulary, for architectures whose converter takes no other form, and few columns, for it has 50,000 tokens."""

    return lambda out: saved(kind, out, sizes(**(byte_level(out) | {"hidden_size": 32} | others)), name)


def byte_level(out: Path) -> dict[str, Any]:
    """GPT-2's vocabulary, and the numbers that a config.json has to say of it."""
    tokenizer = predicting.byte_level(out)
    return {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "vocab_size": len(tokenizer)}


def _qwen2(out: Path) -> Path:
    """With its makers' vocabulary, as llama.cpp has it: for this `model_type` transformers cuts texts as theirs does, whatever tokenizer.json says."""
    out.mkdir()
    file = toolchain.sources() / "models" / "ggml-vocab-qwen2.gguf"
    vocabulary.write(out, gguf_header.read(file), file.name)
    releases.edit(out / "tokenizer_config.json", bos_token=None, eos_token="<|im_end|>")
    ids = {"bos_token_id": None, "eos_token_id": 151645, "pad_token_id": 151643, "vocab_size": 151936}
    return saved("Qwen2", out, sizes(**ids))


def _states(**others: Any) -> dict[str, Any]:
    """Sizes of layers that know neither heads nor positions."""
    return {"hidden_size": HIDDEN, "num_hidden_layers": 2, "initializer_range": SPREAD, "tie_word_embeddings": True, **others}


MODELS: Mapping[str, Make] = {
    "Llama": small("Llama", hidden_size=256, intermediate_size=256, tie_word_embeddings=False),
    "Llama 4": _large(
        "Llama4Text", name="Llama4ForCausalLM", num_hidden_layers=4, head_dim=16, intermediate_size_mlp=64,
        num_local_experts=4, num_experts_per_tok=1, interleave_moe_layer_step=2, rms_norm_eps=1e-5,
    ),
    "Qwen2": _qwen2,
    "Qwen3": _large("Qwen3", head_dim=16),
    "Qwen3-MoE": _large("Qwen3Moe", head_dim=16, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=64, norm_topk_prob=True),
    "Gemma 2": small("Gemma2", head_dim=32, query_pre_attn_scalar=32, sliding_window=512),
    "Gemma 3": small("Gemma3Text", name="Gemma3ForCausalLM", head_dim=32, query_pre_attn_scalar=32, sliding_window=512),
    "Gemma 3 with vision": _seeing,
    "Mistral": small("Mistral", sliding_window=None, tie_word_embeddings=False),
    "Mixtral": small("Mixtral", num_local_experts=4, num_experts_per_tok=2),
    "Mixtral of many experts": small("Mixtral", intermediate_size=32, num_local_experts=128, num_experts_per_tok=8),
    "Phi-3": small("Phi3", spaced=True, vocab_size=PADDED),
    "Granite": small("Granite", embedding_multiplier=4.0, attention_multiplier=0.1, residual_multiplier=0.5, logits_scaling=2.0),
    "Granite MoE": small(
        "GraniteMoe", num_local_experts=4, num_experts_per_tok=2,
        embedding_multiplier=4.0, attention_multiplier=0.1, residual_multiplier=0.5, logits_scaling=2.0,
    ),
    "gpt-oss": _large(
        "GptOss", vocab_size=PADDED_LARGE, hidden_size=64, tie_word_embeddings=False, head_dim=16,
        num_local_experts=4, num_experts_per_tok=2, sliding_window=128,
    ),
    "DeepSeek": _large(
        "DeepseekV3", num_key_value_heads=4, q_lora_rank=32, kv_lora_rank=32, qk_rope_head_dim=16, qk_nope_head_dim=16, v_head_dim=16,
        n_routed_experts=4, num_experts_per_tok=2, n_shared_experts=1, first_k_dense_replace=1, n_group=1, topk_group=1, moe_intermediate_size=64,
    ),
    "SmolLM3": small("SmolLM3", num_hidden_layers=4),
    "Mamba": _large("Mamba", sizes=_states, vocab_size=50264, intermediate_size=64, state_size=16),
    "Mamba 2": small("Mamba2", sizes=_states, spaced=True, state_size=16, num_heads=8, head_dim=16, n_groups=1),
    "GLM4-MoE": predicting.glm,
    "Qwen3-Next": predicting.qwen3_next,
}  # fmt: skip

REFUSED: Mapping[str, Make] = {
    "Helium": small("Helium", head_dim=16),
    "RecurrentGemma": small("RecurrentGemma", lru_width=HIDDEN, attention_window_size=128, head_dim=16),
}
"""What the pinned converter does not know."""


def converted(make: Make, out: Path) -> tuple[Path, Path]:
    """The folder of a miniature as rules leave it, and its GGUF file in 16 bits, both in `out`."""
    snapshot, model = make(out / "snapshot"), out / "model"
    model.mkdir()
    fixes.repair(model, snapshot=snapshot, repo="makers/miniature", fixes=True)
    return model, out / str(convert.convert(out, model=model, name="miniature")["file"])
