"""Looks whether two GGUF files hold the same tensors byte for byte, whatever their headers say: where rows fit no blocks of 256, several mixes come to one."""

from pathlib import Path
from typing import Any

import numpy as np

from builders.ggufs import stored
from config.progress import counted
from engines import gguf_tensors

VERSION = 1  # raise when outputs change

CHUNK = 2**26  # bytes that are compared at a time


def compare(out: Path, *, one: Path, other: Path) -> dict[str, Any]:
    """Returns whether they are the `same`; writes nothing to `out`. Raises ValueError when a file is damaged."""
    return {"same": stored(one) == stored(other) and _same(one, other)}


def _same(one: Path, other: Path) -> bool:
    theirs = {tensor.name: tensor.data.reshape(-1).view(np.uint8) for tensor in gguf_tensors.read(other)}
    for tensor in counted(gguf_tensors.read(one), "tensors"):
        ours = tensor.data.reshape(-1).view(np.uint8)
        if any(not np.array_equal(ours[at : at + CHUNK], theirs[tensor.name][at : at + CHUNK]) for at in range(0, len(ours), CHUNK)):
            return False
    return True
