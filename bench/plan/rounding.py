"""What rounding costs for large models, from counted operations and bytes: `python -m bench.plan.rounding`. Letters are those of `bench.plan.cost`.

For each matrix of R rows and C columns, experts' rows together where they have one Hessian:

- a Hessian takes 4 C² bytes on disk and, while it is summed up, in memory, so the windows run through G groups that fit beside the model;
- operations: passes as for sensitivities, (3 G + 2) A T W, streamed G A T W more; every window adds a product, 2 R C² W;
- rounding one file, on a CPU: factors, 2/3 C³ (a Cholesky decomposition and its inverse, in float64, at a quarter of the rate of large products in
  float32); errors handed on, R C²; the gradient and its changes, 4 R C²; both errors at the end, 4 R C²; and choosing codes, whose rate is measured here
  with the little that a narrow matrix has of the rest.

Every tensor is taken to be rounded, in a type of the rate stated; a GPU does the passes, its machine's cores the rounding.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from bench.plan.cost import CONTEXT, MACHINES, MODELS, WINDOWS, Machine, Model, gradients
from builders import matrices
from builders.rounding import sizes
from builders.rounding.compensate import Metric, compensate
from builders.sensitivity import room
from builders.sensitivity.table import Tensor
from config.errors import UnsupportedModel
from service.machine.speed import Speed
from service.release.costs.build import FACTORED

TYPES = ("Q4_K", "IQ3_S", "IQ2_XXS")
SAMPLE = (1024, 512)  # rows and columns on which choosing codes is timed
PER_CORE = FACTORED * Speed(threads=1).wide  # operations a second of a core in large matrix products


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What rounding takes."""

    disk: float  # bytes of the Hessians
    groups: int
    streamed: bool
    collecting: float  # seconds of the Hessians, once a model
    file: float  # seconds of rounding one file

    @property
    def hours(self) -> tuple[float, float]:
        """Of the Hessians, and of one file."""
        return self.collecting / 3600, self.file / 3600


def _layers(count: int, hidden: int, keys: int, wide: int, experts: int = 1) -> list[Tensor]:
    """The matrices of `count` layers: attention, and a feed-forward part of gate, up and down projections."""
    shapes = [(hidden, hidden, 1)] * 2 + [(keys, hidden, 1)] * 2 + [(wide, hidden, experts)] * 2 + [(hidden, wide, experts)]
    return [Tensor(name="", rows=rows * many, columns=columns, experts=many) for _ in range(count) for rows, columns, many in shapes]


def _table(vocabulary: int, hidden: int) -> Tensor:
    return Tensor(name="", rows=vocabulary, columns=hidden)


TENSORS: dict[str, list[Tensor]] = {
    "1B": [_table(128_256, 2048), *_layers(16, 2048, 512, 8192)],
    "7B": [*[_table(152_064, 3584)] * 2, *_layers(28, 3584, 512, 18_944)],
    "70B": [*[_table(128_256, 8192)] * 2, *_layers(80, 8192, 1024, 28_672)],
    "400B-A17B": [*[_table(202_048, 5120)] * 2, *_layers(24, 5120, 1024, 16_384), *_layers(24, 5120, 1024, 8192, 128)],
}
"""By the names of `cost.MODELS`; shared experts, a hundredth of the last one, are left out."""


def estimate(model: Model, tensors: Sequence[Tensor], machine: Machine, rate: float, *, windows: int = WINDOWS, context: int = CONTEXT) -> Cost:
    """The cost by the formulas above; `rate` is values per second and core whose codes are chosen. Raises UnsupportedModel when the model does not fit."""
    way = room.room(model.shape, context=context, memory=machine.memory, homes=math.isinf(machine.bus))
    hessians = [sizes.hessian_bytes(tensor, way.free) for tensor in tensors]
    groups = len(sizes.grouped(hessians, way.free))
    wide = sum(tensor.parameters * tensor.columns for tensor in tensors)  # Σ R C²
    collecting = (gradients(model, way, groups) * context + 2 * wide) * windows
    moved = 3 * model.shape.parameters * windows * groups / machine.bus if way.streamed else 0.0
    factors = sum(size * tensor.columns for size, tensor in zip(hessians, tensors, strict=True))  # Σ 4 C³, as a Hessian has 4 C² bytes
    values = sum(tensor.parameters for tensor in tensors)
    return Cost(
        disk=float(sum(hessians)),
        groups=groups,
        streamed=way.streamed,
        collecting=max(collecting / machine.operations, moved),
        file=(values / rate + (9 * wide + 2 / 3 * factors) / PER_CORE) / machine.cores,
    )


def rates(types: Sequence[str] = TYPES) -> dict[str, float]:
    """Values per second and core that are rounded anew, by type, in matrices so narrow that choosing codes is most of it."""
    random = np.random.default_rng(0)
    values = random.standard_normal(SAMPLE, dtype=np.float32)
    inputs = random.standard_normal((4 * SAMPLE[1], SAMPLE[1]), dtype=np.float32)
    metric = Metric.of(inputs.T @ inputs)
    weights = np.ones(SAMPLE[1], dtype=np.float32)
    found = {}
    for type in types:
        plain = matrices.quantized(values, type, experts=1, importances=weights)
        compensate(values[:8], type, metric=metric, plain=plain[:8])  # builds the type's tables
        with threadpool_limits(1, "blas"):
            started = time.process_time()  # not wall time: other programs must not count
            compensate(values, type, metric=metric, plain=plain)
            found[type] = values.size / (time.process_time() - started)
    return found


def table(rate: float) -> Table:
    """Every model on every machine."""
    columns = ("model", "machine", "Hessians on disk", "groups", "hours of Hessians", "hours of a file")
    found = Table(*columns, title=f"rounding of large models, {WINDOWS} windows of {CONTEXT} tokens", title_justify="left")
    for model in MODELS:
        for machine in MACHINES:
            try:
                cost = estimate(model, TENSORS[model.name], machine, rate)
            except UnsupportedModel:
                found.add_row(model.name, machine.name, "does not fit", *[""] * 3)
                continue
            where = f"{machine.name}{', layers streamed' if cost.streamed else ''}"
            collecting, file = cost.hours
            found.add_row(model.name, where, f"{cost.disk / 1e9:,.0f} GB", str(cost.groups), f"{collecting:.2f}", f"{file:.2f}")
    return found


def main(console: Console | None = None) -> None:
    """Time the choice of codes and print the table."""
    console = console or Console(highlight=False)
    known = rates()
    console.print("values rounded per second and core: " + ", ".join(f"{type} {rate / 1e6:.2f}M" for type, rate in known.items()))
    console.print(table(min(known.values())))


if __name__ == "__main__":
    main()
