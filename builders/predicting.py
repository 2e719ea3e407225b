"""Tells layers for multi-token prediction (MTP, NextN) by their names: they draft tokens ahead, and no ordinary answer runs them."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from engines import text_part

T = TypeVar("T")
_APART = re.compile(r"(?:^|\.)mtp\.")  # where they are not numbered after the model's own
_NUMBERED = re.compile(r"(?:model\.)?(?:language_model\.)?(?:model\.)?layers\.(\d+)\.")  # layers of the language model


def found(names: Iterable[str], config: Mapping[str, Any]) -> frozenset[str]:
    """Those of a model's tensors that are in such layers: in `mtp`, or in layers beyond as many as config.json says that the language model has."""
    said = text_part.of(config).get("num_hidden_layers")
    layers = said if isinstance(said, int) and not isinstance(said, bool) and said > 0 else None

    def beyond(name: str) -> bool:
        return layers is not None and (layer := _NUMBERED.match(name)) is not None and int(layer[1]) >= layers

    return frozenset(name for name in names if _APART.search(name) or beyond(name))


def without(tensors: Mapping[str, T], config: Mapping[str, Any]) -> dict[str, T]:
    """The tensors, by name, that are not in such layers, which may hold embeddings and an output matrix of their own."""
    drafting = found(tensors, config)
    return {name: tensor for name, tensor in tensors.items() if name not in drafting}
