"""Reads adapter_config.json: which model an adapter belongs to, and how its matrices are to be scaled. What cannot be merged is refused here."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders.names import ADAPTER
from config.errors import UpstreamError

LARGEST = 10_000_000  # bytes of the file

# keys of PEFT 0.21 that say how an adapter was trained or is run, and nothing about what its weights mean
_OTHERWISE = frozenset(
    {
        "arrow_config", "auto_mapping", "corda_config", "eva_config", "exclude_modules", "fan_in_fan_out", "inference_mode", "layers_pattern",
        "layers_to_transform", "loftq_config", "lora_dropout", "lora_ga_config", "megatron_core", "modules_to_save", "bias", "peft_version",
        "qalora_group_size", "runtime_config", "target_modules", "task_type",
    }
)  # fmt: skip
# `fan_in_fan_out` is no more than a wish in PEFT too: the class of the base's layer decides
_READ = frozenset(
    {
        "alpha_pattern", "base_model_name_or_path", "ensure_weight_tying", "init_lora_weights", "lora_alpha", "peft_type", "r", "rank_pattern", "revision",
        "use_dora", "use_rslora",
    }
)  # fmt: skip
_KEEPS_BASE = (None, True, False, "gaussian", "eva", "orthogonal")  # of `init_lora_weights`: the others change the base's weights before training begins
# of modules' names: what repeats is one character, twice at most, so that a stranger's pattern cannot take hours
_PATTERN = re.compile(r"(?!(?:.*[*+]){3})(?:[A-Za-z0-9_.^$|()\[\]-]|\\[.d]|(?<![)^$|(])[*+]){1,500}")
LONGEST_NAME = 300  # characters of a module's name
_REMEDY = "Ask its owner for the merged model, or merge it with the tool that it was trained with and release the result."


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A LoRA as its adapter_config.json describes it."""

    base: str  # as the file names it: "owner/name", or a path on somebody's machine
    revision: str | None  # of the base, where the file says it
    rank: int
    alpha: float
    root: bool  # rank-stabilized: scaled by alpha / sqrt(rank) instead of alpha / rank
    magnitudes: bool  # weight-decomposed (DoRA)
    tied: bool  # output and embeddings were trained as the one matrix that they are in the base
    ranks: Mapping[str, int]  # by patterns of modules' names
    alphas: Mapping[str, float]

    def rank_of(self, module: str) -> int:
        """Rank of the matrices of a module."""
        return self.ranks.get(_matching(self.ranks, module), self.rank)

    def scale_of(self, module: str) -> float:
        """What the product of a module's two matrices is multiplied with (`LoraLayer.update_layer` of PEFT)."""
        alpha, rank = self.alphas.get(_matching(self.alphas, module), self.alpha), self.rank_of(module)
        return alpha / math.sqrt(rank) if self.root else alpha / rank


def _matching(patterns: Mapping[str, Any], module: str) -> str:
    """The first pattern that a module's name ends with, as PEFT finds it (`get_pattern_key`)."""
    return next((pattern for pattern in patterns if len(module) <= LONGEST_NAME and re.match(rf"(.*\.)?({pattern})$", module)), "")


def read(file: Path, repo: str) -> Adapter:
    """What the file says of `repo`. Raises UpstreamError when it is no such description, or the adapter cannot be merged."""
    try:
        if file.stat().st_size > LARGEST:
            raise UpstreamError(f"{ADAPTER} of {repo} has {file.stat().st_size} bytes, more than any adapter needs. Do not use this repo.")
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UpstreamError(f"{ADAPTER} of {repo} is not JSON. The upload may be damaged; ask its owner.") from error
    if not isinstance(content, dict):
        raise UpstreamError(f"{ADAPTER} of {repo} holds no JSON object. The upload may be damaged; ask its owner.")
    if (kind := content.get("peft_type")) != "LORA":
        raise UpstreamError(
            f"{repo} is an adapter of the kind {str(kind)[:40]} ({ADAPTER}, `peft_type`), and only LoRA can be merged into weights here. {_REMEDY}"
        )
    _refuse_unknown(content, repo)
    return _described(content, repo)


def _refuse_unknown(content: Mapping[str, Any], repo: str) -> None:
    """What is set and would make other weights of the adapter than are made here."""
    if (start := content.get("init_lora_weights")) not in _KEEPS_BASE:
        raise UpstreamError(
            f"{repo} was trained on a base whose weights its beginning had changed ({ADAPTER}, `init_lora_weights` is {str(start)[:40]!r}), so that it does "
            f"not fit the base as it is published. Ask its owner to save it with `path_initial_model_for_weight_conversion`, which makes a plain LoRA of it."
        )
    for key, value in content.items():
        if key not in _OTHERWISE | _READ and value:
            raise UpstreamError(f"{repo} is an adapter with `{key[:60]}` in its {ADAPTER}, which cannot be merged into weights here. {_REMEDY}")


def _described(content: Mapping[str, Any], repo: str) -> Adapter:
    base, revision = content.get("base_model_name_or_path"), content.get("revision")
    if not isinstance(base, str) or not base.strip():
        raise UpstreamError(f"{ADAPTER} of {repo} does not name the base model (`base_model_name_or_path`). Ask its owner, or write it into a copy.")
    rank, alpha = content.get("r", 8), content.get("lora_alpha", 8)
    ranks, alphas = content.get("rank_pattern") or {}, content.get("alpha_pattern") or {}
    sound = isinstance(ranks, dict) and isinstance(alphas, dict) and all(map(_is_pattern, [*ranks, *alphas]))
    if not sound or not all(map(_is_rank, [rank, *ranks.values()])) or not all(map(_is_number, [alpha, *alphas.values()])):
        raise UpstreamError(f"{ADAPTER} of {repo} has no usable `r`, `lora_alpha`, `rank_pattern` or `alpha_pattern`. {_REMEDY}")
    return Adapter(
        base=base.strip(),
        revision=revision if isinstance(revision, str) and revision else None,
        rank=rank,
        alpha=float(alpha),
        root=bool(content.get("use_rslora")),
        magnitudes=bool(content.get("use_dora")),
        tied=bool(content.get("ensure_weight_tying")),
        ranks=ranks,
        alphas=alphas,
    )


def _is_pattern(value: object) -> bool:
    try:
        return isinstance(value, str) and _PATTERN.fullmatch(value) is not None and bool(re.compile(value))
    except re.error:
        return False


def _is_rank(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
