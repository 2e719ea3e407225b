"""Whether a release can begin with a model, as far as its config.json and the headers of its weights tell."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from builders import packed
from builders.weights import Tensor

OMNI = "thinker_config"
ELSEWHERE = (OMNI, "llm_config", "lm_config", "language_config", "lfm", "ssm_cfg")
"""Sections of config.json in which llama.cpp's converter looks for the language model too; transformers, and all rules, look in `text_config`."""
READ = frozenset({("nemotron_h_omni", "llm_config"), ("unlimited_ocr", "language_config")})
"""Which of them transformers (5.23.0) reads all the same, by model type."""
LEFT = frozenset({("mamba", "ssm_cfg"), ("mamba2", "ssm_cfg")})
"""Which of them say nothing in transformers' own form, by model type: what the model was converted from had them (state-spaces/mamba-130m-hf)."""


def refusal(config: Mapping[str, Any], tensors: Mapping[str, Tensor], *, variant: bool = False) -> str | None:
    """Why a release cannot begin with the model, as a sentence's end after the repo's name, and what to do; None when it can.

    `variant`: it may have bitsandbytes' weights as well, which transformers runs as they are.
    """
    return _elsewhere(config) or packed.refusal(config, tensors, variant=variant)


def _elsewhere(config: Mapping[str, Any]) -> str | None:
    """That the language model is described where transformers does not look."""
    known = READ | LEFT
    section = next((name for name in ELSEWHERE if isinstance(config.get(name), dict) and (str(config.get("model_type")), name) not in known), None)
    if section is None or "text_config" in config:
        return None
    transformers = f"transformers ({version('transformers')})"
    if section == OMNI:
        return (
            f"is an omni model: its language model (`{OMNI}` in config.json) stands beside one that speaks, and {transformers} loads it by no class for "
            "language models, so that it could be neither repaired nor measured. Its language model alone can be released: docs/architectures.md has the lines "
            "that write that to a folder, under the heading `Language models within others`."
        )
    return (
        f"describes its language model as `{section}` in config.json, where {transformers} does not look, so that it could be neither repaired nor measured. "
        "Release it in transformers' own form, where there is one: often a repo of its makers whose name ends in `-hf`."
    )
