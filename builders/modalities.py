"""What a model reads beside text: a GGUF file of its text part knows nothing of it."""

from collections.abc import Mapping
from typing import Any

_PARTS = {"vision_config": "images", "audio_config": "sound"}  # by keys of config.json


def remark(config: Mapping[str, Any]) -> str | None:
    """A sentence for cards and dry runs, of models that read more than text."""
    read = " and ".join(what for key, what in _PARTS.items() if isinstance(config.get(key), dict))
    if not read:
        return None
    return (
        f"The model reads {read} too. GGUF files hold its text part alone and no projector (mmproj) goes with them, so llama.cpp and Ollama read only text. "
        f"For {read}, use the 16-bit or NF4 weights in transformers"
    )
