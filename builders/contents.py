"""What built GGUF files are made of: type and size of every tensor, added up by layer and role, for the report's plots."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from builders.ggufs import stored

VERSION = 1  # raise when outputs change

FILE = "contents.json"
VECTORS = "norms and biases"  # all of a layer's tensors of one dimension: many, small, and never quantized

_LAYER = re.compile(r"blk\.(\d+)\.(.+)")
_PARTS = (".weight", ".bias")


def describe(out: Path, *, variants: Sequence[Path]) -> dict[str, Any]:
    """Write contents.json: by file name a list of [layer or null, role, type, bytes, weights], or null for a file that cannot be read.

    One row for each matrix, and one for all vectors of a layer, or outside of layers, that have the same type.
    """
    (out / FILE).write_text(json.dumps({path.name: _rows(path) for path in variants}, separators=(",", ":")), encoding="utf-8")
    return {"file": FILE, "variants": len(variants)}


def _rows(path: Path) -> list[list[Any]] | None:
    try:
        tensors = stored(path)
    except (ValueError, IndexError, KeyError, OverflowError, UnicodeDecodeError):  # a damaged file: its gate says so, and the others still have their plots
        return None
    found: dict[tuple[int | None, str, str], list[int]] = {}
    for name, tensor in tensors.items():
        layer, role = place(name)
        total = found.setdefault((layer, role if tensor.matrix else VECTORS, tensor.type), [0, 0])
        total[0] += tensor.bytes
        total[1] += tensor.values
    return [[*key, *total] for key, total in found.items()]


def place(name: str) -> tuple[int | None, str]:
    """The layer of a tensor, None outside of layers, and its role there: `blk.3.attn_q.weight` is (3, "attn_q")."""
    for part in _PARTS:
        name = name.removesuffix(part)
    found = _LAYER.fullmatch(name)
    return (int(found[1]), found[2]) if found else (None, name)
