"""What a sensitivity pass and a plan cost for large models, from counted operations and bytes: `python -m bench.plan.cost`.

With P parameters (A of them active per token), Q types that make an error, W windows of T tokens and E bytes of room for errors:

- errors: 4 · P · Q bytes, so the windows run through G = ceil(4 P Q / E) groups;
- operations: a group's forward passes cost 2 A T W; its backward passes end at the group's first layer, on average half way, A T W; every weight's gradient
  is taken once, 2 A T W; the products are 2 P Q W. Together (3 G + 2) A T W + 2 P Q W;
- bytes moved: each product reads its error, 4 P Q W; every error comes over the bus once, 4 P Q; where weights are off-loaded, every pass brings them over the
  bus, 2 P each forward and, on average, half of that backward, 3 P W G;
- quantizing: P · Σ over types of 1 / (values per second and core), once for each group and step, shared by the cores. The rates are measured here;
- memory: `needed_bytes` of the pass.

Rates of the machines are half of what their makers state, which large matrix products reach. Products and gradients of experts that a window never reached
are counted like the others, so mixtures of experts may be cheaper than stated.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from builders.sensitivity.fisher import DELTA, needed_bytes
from builders.sensitivity.table import TYPES
from engines import ggml

WINDOWS, CONTEXT = 128, 512
STEPS = 1  # times that errors are made: once when the number of windows is known, as here
SAMPLE = (256, 1024)  # rows and columns that the quantizers are timed on
ACTIVATIONS = 20  # values kept for each token, layer, and hidden or feed-forward unit


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A model, as far as costs depend on it."""

    name: str
    parameters: float
    active: float
    layers: int
    hidden: int
    wide: int  # feed-forward units of the experts that one token reaches
    vocabulary: int
    largest: float  # parameters of the largest tensor, all experts together


SHAPES = (
    Shape(name="1B", parameters=1.24e9, active=1.24e9, layers=16, hidden=2048, wide=8192, vocabulary=128_256, largest=2.6e8),
    Shape(name="7B", parameters=7.6e9, active=7.6e9, layers=28, hidden=3584, wide=18_944, vocabulary=152_064, largest=5.4e8),
    Shape(name="70B", parameters=70.6e9, active=70.6e9, layers=80, hidden=8192, wide=28_672, vocabulary=128_256, largest=1.05e9),
    Shape(name="400B-A17B", parameters=400e9, active=17e9, layers=48, hidden=5120, wide=16_384, vocabulary=202_048, largest=1.07e10),
)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where the pass runs. Rates are effective ones, per second."""

    name: str
    memory: float  # bytes of the devices together, for model, gradients and errors
    operations: float
    bandwidth: float  # bytes between memory and units
    bus: float  # bytes from the host's memory, where the model lies when the device cannot hold it
    cores: int  # for llama.cpp's quantizers


MACHINES = (
    Machine(name="64 cores, 1 TiB", memory=2.0**40, operations=2e12, bandwidth=2e11, bus=math.inf, cores=64),
    Machine(name="one GPU of 141 GB", memory=1.41e11, operations=4e14, bandwidth=2.4e12, bus=2.5e10, cores=32),
    Machine(name="eight GPUs of 141 GB", memory=8 * 1.41e11, operations=3.2e15, bandwidth=1.9e13, bus=2e11, cores=128),
)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a sensitivity pass takes."""

    memory: float  # bytes at the peak, with the errors of one group
    groups: int
    passes: int  # forward, and as many backward
    off_loaded: bool
    computing: float  # seconds, the larger of operations and bytes
    quantizing: float  # seconds

    @property
    def hours(self) -> float:
        """Computing and quantizing one after the other."""
        return (self.computing + self.quantizing) / 3600


def estimate(shape: Shape, machine: Machine, rates: Mapping[str, float], *, windows: int = WINDOWS, context: int = CONTEXT) -> Cost:
    """The cost by the formulas above; `rates` are values per second of one core by type. Raises ValueError when not even one error fits."""
    activations = ACTIVATIONS * context * shape.layers * (shape.hidden + shape.wide) * 2
    weights = 2 * shape.parameters
    gradient, logits = 2 * shape.largest, context * shape.vocabulary

    def needed(model: float, errors: float) -> float:
        return float(needed_bytes(model=int(model), errors=int(errors), gradient=int(gradient), logits=logits, activations=activations))

    off_loaded = needed(weights, DELTA * shape.largest) > machine.memory
    held = 2 * weights / shape.layers if off_loaded else weights  # two layers: one at work, one on its way
    room = machine.memory - needed(held, 0)
    whole = DELTA * shape.parameters * len(rates)
    if room < DELTA * shape.largest:
        raise ValueError(f"{machine.name} has no room for the error of the largest tensor of {shape.name} in one type")
    groups = math.ceil(whole / room)
    passes = groups * windows
    operations = (3 * groups + 2) * shape.active * context * windows + 2 * shape.parameters * len(rates) * windows
    moved = whole * windows / machine.bandwidth + (whole + (3 * shape.parameters * passes if off_loaded else 0)) / machine.bus
    quantizing = STEPS * sum(shape.parameters / rate for rate in rates.values()) / machine.cores
    return Cost(
        memory=needed(held, min(whole, room)),
        groups=groups,
        passes=passes,
        off_loaded=off_loaded,
        computing=max(operations / machine.operations, moved),
        quantizing=quantizing,
    )


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
    for shape in SHAPES:
        for machine in MACHINES:
            try:
                cost = estimate(shape, machine, rates)
            except ValueError:
                found.add_row(shape.name, machine.name, "does not fit", *[""] * 5)
                continue
            where = f"{machine.name}{', weights off-loaded' if cost.off_loaded else ''}"
            times = (f"{cost.computing / 3600:.2f} h", f"{cost.quantizing / 3600:.2f} h", f"{cost.hours:.1f}")
            found.add_row(shape.name, where, f"{cost.memory / 1e9:.0f} GB", str(cost.groups), str(cost.passes), *times)
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
