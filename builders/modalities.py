"""What a model reads beside text: GGUF files of its text part know nothing of it, and pictures need a projector (mmproj) beside them."""

import re
from collections.abc import Mapping
from typing import Any

_PARTS = {"vision_config": "images", "audio_config": "sound"}  # by keys of config.json
_EYES = re.compile(r"vision|visual|multi_modal_projector|connector")  # in the names of tensors


def sees(config: Mapping[str, Any], tensor: str) -> bool:
    """Whether a tensor of that name reads images, in a model of that configuration."""
    return "images" in read(config) and _EYES.search(tensor) is not None


def read(config: Mapping[str, Any]) -> tuple[str, ...]:
    """What the model reads beside text: images, sound."""
    return tuple(what for key, what in _PARTS.items() if isinstance(config.get(key), dict))


def remark(config: Mapping[str, Any], *, projected: bool = False, why: str = "") -> str | None:
    """A sentence for cards and dry runs, of models that read more than text: for which part of that GGUF files will not do, and `why`.

    `projected`: a projector for images goes with them.
    """
    rest = [what for what in read(config) if what != "images" or not projected]
    if not rest:
        return None
    left = " and ".join(rest)
    because = f": {why.rstrip('.')}" if why else ""
    return (
        f"The model reads {left} too. GGUF files hold its text part alone and no projector (mmproj) for {left} goes with them{because}. So llama.cpp and "
        f"Ollama do not read {left}: use the 16-bit or NF4 weights in transformers for that"
    )
