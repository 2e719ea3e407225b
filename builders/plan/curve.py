"""Predicted KLD against size, for a drawing: planned mixes from 2 to 8 bits, and the stock mixes as points."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from builders.plan.capacity import Capacity, capacity
from builders.plan.solve import solution
from builders.sensitivity.table import Mix, Sensitivity
from config.errors import ConfigurationError
from config.plans import Budget, GgufType, Rules

BITS = tuple(2 + step / 4 for step in range(25))


@dataclass(frozen=True, kw_only=True)
class Point:
    """One file that could be made."""

    name: str  # a stock mix's, or "" of a planned one
    bytes: int
    bpw: float
    mean: float  # predicted KLD, nats per token
    stderr: float


def curve(sensitivity: Sensitivity, *, gguf: Path, imatrix: Path, rules: Rules) -> tuple[list[Point], list[Point]]:
    """The planned mixes by bits per weight, and the stock mixes; sizes that cannot be are left out, as are stock mixes with types that the table lacks."""
    planned = {tensor.name for tensor in sensitivity.tensors}
    rooms = {name: capacity(Budget(like=name), gguf=gguf, imatrix=imatrix, planned=planned) for name in get_args(GgufType)}

    def point(name: str, room: Capacity, mix: Mix, size: int) -> Point:
        estimate = sensitivity.predict(mix)
        return Point(name=name, bytes=room.overhead + size, bpw=room.bpw(sensitivity.bytes(mix)), mean=estimate.mean, stderr=estimate.stderr)

    ours, stocks = [], []
    rest = rooms["Q8_0"]  # in a planned file too, what is not planned is stored as in this mix; see `capacity`
    for bpw in BITS:
        with suppress(ConfigurationError):
            found = solution(sensitivity, capacity=rest.within(bpw), rules=rules)
            ours.append(point("", rest, found.mix, found.bytes))
    for name, room in rooms.items():
        mix = {tensor.name: (room.stock or {}).get(tensor.name, "BF16") for tensor in sensitivity.tensors}
        if all(mix[tensor.name] in sensitivity.allowed(tensor) for tensor in sensitivity.tensors):
            stocks.append(point(name, room, mix, room.planned))
    return ours, stocks
