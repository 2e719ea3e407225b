"""What a sensitivity pass and a plan cost for large models, from counted operations and bytes: `python -m bench.plan.cost`.

With P parameters (A of them active per token), S of them in the rows that are quantized (`builders.sensitivity.rows`), Q types that make an error, W windows of
T tokens and E bytes of room for errors (`builders.sensitivity.room`):

- errors: 4 · S · Q bytes, so the windows run through G = ceil(4 S Q / E) groups;
- operations: a group's forward passes cost 2 A T W; its backward passes end at the group's first layer, on average half way, A T W; every weight's gradient
  is taken once, 2 A T W; the products are 2 S Q W. Together (3 G + 2) A T W + 2 S Q W; backward passes compute streamed layers once more, G A T W;
- activations: F windows more forward and backward through all layers, 4 A T F, streamed 6 A T F and 4 P F bytes;
- bytes moved: each product reads its error, 4 S Q W; every error comes over the bus once, 4 S Q; where layers are streamed, every pass brings them over the
  bus, 2 P each forward and, on average, half of that backward, 3 P W G;
- quantizing: S · Σ over types of 1 / (values per second and core), once for each group and step, shared by the cores. The rates are measured here.

Rates of the machines are half of what their makers state (for a GPU in TF32), which large matrix products reach. Products and gradients of experts that a
window never reached are counted like the others, so mixtures of experts may be cheaper than stated.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from builders.sensitivity import room, rows
from builders.sensitivity.measure import ROUNDED
from builders.sensitivity.table import TYPES
from config.errors import UnsupportedModel
from engines import ggml
from service.release.costs.build import TYPICAL

WINDOWS, CONTEXT = TYPICAL, 512
STEPS = 1  # times that errors are made: once when the number of windows is known, as here
SAMPLE = (256, 1024)  # rows and columns that the quantizers are timed on


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model, as far as costs depend on it."""

    name: str
    active: float  # parameters that one token meets
    shape: room.Shape
    tables: int = 2  # of the vocabulary
    experts: int = 1

    @property
    def sampled(self) -> int:
        """Parameters in the rows that are quantized: of four matrices of attention, and of three of the experts, one of which has their units as columns."""
        each = max(rows.ROWS, rows.LEAST * self.experts)
        layer = rows.ROWS * 4 * self.shape.hidden + each * (2 * self.shape.hidden + self.shape.wide)
        return len(self.shape.layers) * layer + self.tables * (rows.ROWS + rows.FREQUENT) * self.shape.hidden


def _shape(*, layer: float, count: int, vocabulary: int, hidden: int, wide: int, largest: float, tables: int = 2) -> room.Shape:
    """Of a model of `count` layers with so many parameters each, and one or two tables of its vocabulary."""
    embedding = vocabulary * hidden
    layers = (int(layer),) * count
    return room.Shape(outside=tables * embedding, layers=layers, largest=max(embedding, int(largest)), vocabulary=vocabulary, hidden=hidden, wide=wide)


MODELS = (
    Model(name="1B", active=1.24e9, shape=_shape(layer=6.1e7, count=16, vocabulary=128_256, hidden=2048, wide=8192, largest=0, tables=1), tables=1),
    Model(name="7B", active=7.6e9, shape=_shape(layer=2.33e8, count=28, vocabulary=152_064, hidden=3584, wide=18_944, largest=0)),
    Model(name="70B", active=70.6e9, shape=_shape(layer=8.56e8, count=80, vocabulary=128_256, hidden=8192, wide=28_672, largest=0)),
    Model(name="400B-A17B", active=17e9, shape=_shape(layer=8.3e9, count=48, vocabulary=202_048, hidden=5120, wide=16_384, largest=5.4e9), experts=128),
)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where the pass runs. Rates are effective ones, per second."""

    name: str
    memory: int  # bytes of the device, for model, gradients and errors
    operations: float
    bandwidth: float  # bytes between memory and units
    bus: float  # bytes from the host's memory, where layers lie when the device cannot hold them; infinite where both are the same
    cores: int  # for llama.cpp's quantizers


MACHINES = (
    Machine(name="64 cores, 1 TiB", memory=2**40, operations=2e12, bandwidth=2e11, bus=math.inf, cores=64),
    Machine(name="one GPU of 24 GB", memory=24 * 10**9, operations=4e13, bandwidth=5e11, bus=1.2e10, cores=16),
    Machine(name="one GPU of 141 GB", memory=141 * 10**9, operations=2.5e14, bandwidth=2.4e12, bus=2.5e10, cores=32),
)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a sensitivity pass takes."""

    memory: float  # bytes at the peak, with the errors of one group
    groups: int
    passes: int  # forward, and as many backward, those for activations among them
    streamed: bool
    computing: float  # seconds, the larger of operations and bytes
    quantizing: float  # seconds

    @property
    def hours(self) -> float:
        """Computing and quantizing one after the other."""
        return (self.computing + self.quantizing) / 3600


def estimate(model: Model, machine: Machine, rates: Mapping[str, float], *, windows: int = WINDOWS, context: int = CONTEXT) -> Cost:
    """The cost by the formulas above; `rates` are values per second of one core by type. Raises UnsupportedModel when the model does not fit."""
    homes = math.isinf(machine.bus)
    way = room.room(model.shape, context=context, memory=machine.memory, homes=homes)
    parameters = model.shape.parameters
    whole = room.DELTA * model.sampled * len(rates)
    groups = math.ceil(whole / way.free)
    passes = groups * windows
    few = min(windows, ROUNDED)
    rounding = (6 if way.streamed else 4) * model.active * context * few
    operations = gradients(model, way, groups) * context * windows + rounding + 2 * model.sampled * len(rates) * windows
    moved = whole * windows / machine.bandwidth + (whole + (parameters * (3 * passes + 4 * few) if way.streamed else 0)) / machine.bus
    quantizing = STEPS * sum(model.sampled / rate for rate in rates.values()) / machine.cores
    return Cost(
        memory=room.needed(model.shape, context=context, streamed=way.streamed, homes=homes) + min(whole, way.free),
        groups=groups,
        passes=passes + few,
        streamed=way.streamed,
        computing=max(operations / machine.operations, moved),
        quantizing=quantizing,
    )


def gradients(model: Model, way: room.Room, groups: int) -> float:
    """Operations for each token of the windows: forward and backward passes of all groups, in which every weight's gradient is taken once."""
    return ((4 if way.streamed else 3) * groups + 2) * model.active


def quantizer_rates(types: Sequence[str] = TYPES) -> dict[str, float]:
    """Values per second that one core quantizes and dequantizes, by type; BF16 makes no error and is left out."""
    values = np.random.default_rng(0).standard_normal(SAMPLE, dtype=np.float32)
    weights = np.ones(SAMPLE[1], dtype=np.float32)
    rates = {}
    for type in types:
        if type == "BF16":
            continue
        ggml.quantize(values[:1], type, importances=weights)  # builds the type's tables
        started = time.thread_time()  # not wall time: other programs must not count
        ggml.dequantize(ggml.quantize(values, type, importances=weights), type, SAMPLE[1])
        rates[type] = values.size / (time.thread_time() - started)
    return rates


def table(rates: Mapping[str, float]) -> Table:
    """Every model on every machine."""
    columns = ("model", "machine", "memory", "groups", "passes", "computing", "quantizing", "hours")
    found = Table(*columns, title=f"sensitivities of large models, {WINDOWS} windows of {CONTEXT} tokens, {len(rates)} types", title_justify="left")
    for model in MODELS:
        for machine in MACHINES:
            try:
                cost = estimate(model, machine, rates)
            except UnsupportedModel:
                found.add_row(model.name, machine.name, "does not fit", *[""] * 5)
                continue
            where = f"{machine.name}{', layers streamed' if cost.streamed else ''}"
            times = (f"{cost.computing / 3600:.2f} h", f"{cost.quantizing / 3600:.2f} h", f"{cost.hours:.1f}")
            found.add_row(model.name, where, f"{cost.memory / 1e9:.0f} GB", str(cost.groups), str(cost.passes), *times)
    return found


def main(console: Console | None = None) -> None:
    """Time the quantizers and print the table."""
    console = console or Console(highlight=False)
    rates = quantizer_rates()
    slow = sorted(rates, key=lambda type: rates[type])
    console.print("values quantized per second and core: " + ", ".join(f"{type} {rates[type] / 1e6:.2f}M" for type in slow))
    console.print(table(rates))


if __name__ == "__main__":
    main()
