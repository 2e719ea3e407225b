"""Gives a finished GGUF file the name of the variant that it is published as: a stock mix where it is better than the planned one."""

from pathlib import Path
from typing import Any

from builders.ggufs import described
from builders.links import link_or_copy

VERSION = 1  # raise when outputs change


def stand_in(out: Path, *, gguf: Path, name: str, tag: str) -> dict[str, Any]:
    """Write `NAME-TAG.gguf` with the bytes of `gguf`. Returns what `ggufs.described` tells, as for every built variant."""
    target = out / f"{name}-{tag}.gguf"
    link_or_copy(gguf, target)
    return described(target)
