"""Models of which the sizes are known, and what can be known of a release of them, with nothing downloaded."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from huggingface_hub import HfApi

from builders.snapshot import Upstream
from config.recipe import Recipe
from config.settings import Settings
from config.words import Release
from service.release.prospect import Prospect

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model's sizes, as its config.json gives them."""

    layers: int
    hidden: int
    wide: int  # of each expert, where there are any
    vocabulary: int
    heads: int  # of queries
    groups: int  # heads of keys and values
    width: int  # of a head
    tied: bool = False
    experts: int = 0  # of a layer
    reached: int = 0  # by one token

    @property
    def shapes(self) -> Shapes:
        """Of every tensor, by its name in the safetensors."""
        found: Shapes = {"model.embed_tokens.weight": (self.vocabulary, self.hidden), "model.norm.weight": (self.hidden,)}
        if not self.tied:
            found["lm_head.weight"] = (self.vocabulary, self.hidden)
        for layer in range(self.layers):
            at = f"model.layers.{layer}."
            found[f"{at}self_attn.q_proj.weight"] = (self.heads * self.width, self.hidden)
            found |= {f"{at}self_attn.{part}_proj.weight": (self.groups * self.width, self.hidden) for part in "kv"}
            found[f"{at}self_attn.o_proj.weight"] = (self.hidden, self.heads * self.width)
            for own in [f"{at}mlp.experts.{expert}." for expert in range(self.experts)] or [f"{at}mlp."]:
                found |= {f"{own}{part}_proj.weight": (self.wide, self.hidden) for part in ("gate", "up")}
                found[f"{own}down_proj.weight"] = (self.hidden, self.wide)
            found |= {f"{at}{part}_layernorm.weight": (self.hidden,) for part in ("input", "post_attention")}
        return found

    @property
    def config(self) -> Mapping[str, int]:
        """What of config.json costs depend on."""
        experts = {"num_experts": self.experts, "num_experts_per_tok": self.reached, "moe_intermediate_size": self.wide} if self.experts else {}
        return {
            "hidden_size": self.hidden, "intermediate_size": self.wide, "vocab_size": self.vocabulary, "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads, "num_key_value_heads": self.groups, "head_dim": self.width, **experts,
        }  # fmt: skip


MODELS: Mapping[str, Model] = {
    "Qwen3-0.6B": Model(layers=28, hidden=1024, wide=3072, vocabulary=151_936, heads=16, groups=8, width=128, tied=True),
    "SmolLM2-135M": Model(layers=30, hidden=576, wide=1536, vocabulary=49_152, heads=9, groups=3, width=64, tied=True),
    "Llama-3.2-1B": Model(layers=16, hidden=2048, wide=8192, vocabulary=128_256, heads=32, groups=8, width=64, tied=True),
    "Qwen3-4B": Model(layers=36, hidden=2560, wide=9728, vocabulary=151_936, heads=32, groups=8, width=128, tied=True),
    "Llama-3.1-8B": Model(layers=32, hidden=4096, wide=14_336, vocabulary=128_256, heads=32, groups=8, width=128),
    "Qwen3-32B": Model(layers=64, hidden=5120, wide=25_600, vocabulary=151_936, heads=64, groups=8, width=128),
    "Llama-3.1-70B": Model(layers=80, hidden=8192, wide=28_672, vocabulary=128_256, heads=64, groups=8, width=128),
    # of Qwen3.5-397B-A17B's sizes, with attention in every layer
    "400B-A17B": Model(layers=60, hidden=4096, wide=1024, vocabulary=248_320, heads=32, groups=2, width=256, experts=512, reached=11),
}

SHORT: Mapping[str, str] = {"0.6B": "Qwen3-0.6B", "8B": "Llama-3.1-8B", "32B": "Qwen3-32B", "70B": "Llama-3.1-70B", "400B": "400B-A17B"}
"""What people say for one of these models."""


def prospect(model: Model, recipe: Recipe, settings: Settings) -> Prospect:
    """A release of the model, its weights in 16 bits in one file."""
    shapes = model.shapes
    weights = 2 * sum(math.prod(shape) for shape in shapes.values())
    return Prospect(
        settings=settings,
        api=HfApi(),
        recipe=recipe,
        upstream=Upstream(release=Release(repo="upstream/model", sha="0" * 40), private=False, gated=False),
        sizes={"model.safetensors": weights, "config.json": 1000, "tokenizer.json": 70 * model.vocabulary},
        shapes=shapes,
        config=model.config,
        namespace="ours",
    )
