"""How far two sequences agree."""

from collections.abc import Sequence
from typing import Any


def shared(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many leading items both share: the first place at which they differ, or the length of the one that the other begins with."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
