"""Predicted KLD against size, for a drawing: planned mixes from 2 to 8 bits, and the stock mixes as points."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from builders.plan.capacity import capacity
from builders.plan.solve import solution
from builders.sensitivity.table import Sensitivity
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


def curve(sensitivity: Sensitivity, *, gguf: Path, imatrix: Path, rules: Rules, bits: Sequence[float] = BITS) -> tuple[list[Point], list[Point]]:
    """The planned mixes by bits per weight, and the stock mixes; sizes that cannot be are left out, as are stock mixes with types that the table lacks."""
    planned = {tensor.name for tensor in sensitivity.tensors}
    ours, stocks = [], []
    for bpw in bits:
        room = capacity(Budget(bpw=bpw), gguf=gguf, imatrix=imatrix, planned=planned)
        try:
            found = solution(sensitivity, capacity=room.planned, rules=rules)
        except ConfigurationError:
            continue
        estimate = sensitivity.predict(found.mix)
        real = 8 * (room.fixed_tensor_bytes + sensitivity.bytes(found.mix)) / room.parameters
        ours.append(Point(name="", bytes=room.overhead + found.bytes, bpw=real, mean=estimate.mean, stderr=estimate.stderr))
    for name in get_args(GgufType):
        room = capacity(Budget(like=name), gguf=gguf, imatrix=imatrix, planned=planned)
        mix = {tensor.name: (room.stock or {}).get(tensor.name, "BF16") for tensor in sensitivity.tensors}
        if all(mix[tensor.name] in sensitivity.allowed(tensor) for tensor in sensitivity.tensors):
            estimate = sensitivity.predict(mix)
            real = 8 * (room.fixed_tensor_bytes + sensitivity.bytes(mix)) / room.parameters
            stocks.append(Point(name=name, bytes=room.overhead + room.planned, bpw=real, mean=estimate.mean, stderr=estimate.stderr))
    return ours, stocks
