"""Looks whether two GGUF files hold the same tensors byte for byte, whatever their headers say: where rows fit no blocks of 256, several mixes come to one."""

from pathlib import Path
from typing import Any

from builders.ggufs import stored
from config.progress import counted
from engines import gguf_tensors

VERSION = 1  # raise when outputs change


def compare(out: Path, *, one: Path, other: Path) -> dict[str, Any]:
    """Returns whether they are the `same`; writes nothing to `out`. Raises ValueError when a file is damaged."""
    return {"same": stored(one) == stored(other) and _same(one, other)}


def _same(one: Path, other: Path) -> bool:
    theirs = {tensor.name: tensor for tensor in gguf_tensors.read(other)}
    return all(gguf_tensors.same(tensor, theirs[tensor.name]) for tensor in counted(gguf_tensors.read(one), "tensors"))
