"""How cards and reports show figures and changed values, as plain strings that are not yet escaped."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from config.words import Measurement

UNITS = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"), (1, "B"))


def listed(names: Sequence[str]) -> str:
    """Names, one at least, as in a sentence: "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def size(count: int | None) -> str:
    """Bytes in decimal units, as the Hub shows them."""
    if count is None:
        return "—"
    unit, name = unit_of(count)
    return f"{count / unit:.2f} {name}" if unit > 1 else f"{count} B"


def unit_of(count: int) -> tuple[int, str]:
    """The decimal unit in which that many bytes are a readable number."""
    return next((unit, name) for unit, name in UNITS if count >= unit or unit == 1)


def tensors(found: Mapping[str, Sequence[int]]) -> list[str]:
    """Names of tensors by roles, each with its layers in order or none, those of one role together: blk.0.ffn_up to blk.29.ffn_up are blk.{0-29}.ffn_up."""
    return [f"blk.{_span(layers)}.{role}" if layers else role for role, layers in found.items()]


def _span(layers: Sequence[int]) -> str:
    """Layers in order, as a name has them: 3, or {0-4,7}."""
    if len(layers) == 1:
        return str(layers[0])
    runs: list[tuple[int, int]] = []
    for layer in layers:
        if runs and layer == runs[-1][1] + 1:
            runs[-1] = runs[-1][0], layer
        else:
            runs.append((layer, layer))
    return "{" + ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs) + "}"


def nats(found: Measurement | None) -> str:
    """A divergence and its error, without the unit."""
    if found is None:
        return "—"
    return f"{found.value:.5f}" + (f" ± {found.stderr:.5f}" if found.stderr is not None else "")


def share(found: Measurement | None) -> str:
    """A share of 1 and its error, in per cent."""
    if found is None:
        return "—"
    return f"{100 * found.value:.2f}" + (f" ± {100 * found.stderr:.2f}" if found.stderr is not None else "") + " %"


def excerpts(before: Any, after: Any, most: int) -> tuple[str, str]:
    """Two JSON values, None for one that is not there; of long ones `most` characters around the place where they part."""
    one, other = _json(before), _json(after)
    start = 0
    if max(len(one), len(other)) > most:
        shared = next((place for place, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), min(len(one), len(other)))
        start = max(0, shared - most // 4)
    return _cut(one, start, start + most), _cut(other, start, start + most)


def _json(value: Any) -> str:
    return "absent" if value is None else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _cut(value: str, start: int, end: int) -> str:
    return ("… " if start else "") + value[start:end] + (" …" if len(value) > end else "")
