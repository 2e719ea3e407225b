"""The language model's part of config.json, which in models that read more than text stands beside other parts."""

from collections.abc import Mapping
from typing import Any


def of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What config.json says of the language model: `config` itself where it has no part of its own."""
    part = config.get("text_config")
    return part if isinstance(part, Mapping) else config
