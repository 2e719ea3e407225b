"""The costs of building variants: quantizing, the passes over calibration text of which mixes are planned, and rounding anew."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import psutil

from builders.rounding import sizes as hessian_sizes
from builders.sensitivity import room, rows
from builders.sensitivity.table import TYPES, Tensor
from config.errors import UnsupportedModel
from config.recipe import Dynamic
from config.words import Variant
from engines import ggml
from service.machine.speed import Speed
from service.release.costs import sizes
from service.release.costs.engines import BACKWARD, PYTHON_MEMORY, TORCH_MEMORY, Engines
from service.release.costs.outline import outline
from service.release.costs.prepare import configuration, engines, gguf_bytes
from service.release.costs.texts import read, windows
from service.release.graph import Cost, Needs
from service.release.prospect import Prospect

TYPICAL = 48  # windows after which the sensitivities of most models are known well enough, where there is so much text
HALF = 0.6  # of a product that gives a Hessian: it is symmetric
ROUNDED = 8  # windows that tell what rounding activations costs
GPU_HALVES = 2.0  # times the rate of TF32 at which tensor cores multiply bfloat16, by data sheets from Ampere on
WATCHED = 0.2  # passes forward that one of these takes longer for it
FOUND = 8e-9  # seconds for a value whose place in the network is found
SQUARED = 4e-9  # seconds for a value whose error is squared, in each type
PRODUCTS = 2.0  # times the rate of a whole pass at which large matrix products run
FACTORED = 0.9  # times the rate of a wide model's products at which errors are passed on, and Hessians factored
PROBES, PROBED = 20, 32  # files and windows where sensitivities are found by probes
NF4_PACKED = 3e-8  # seconds for a value that becomes NF4
SCALAR, CODEBOOK = 1.3, 0.37  # times the measured rate of choosing codes: in most types value by value, and in types with a codebook
# of a planned mix's values those that one before it holds in the same type, by whether rows fill blocks of 256, as the bundled model's do in three mixes; those
# of SmolLM2-135M, in nine, have five types to choose from
AGAIN = {True: 0.1, False: 0.7}

BOOKS = tuple(type for type in TYPES if type.startswith(("IQ1", "IQ2", "IQ3")))
_MIXED: Mapping[str, str] = {"Q8": "Q8_0", "Q6": "Q6_K", "Q5": "Q5_K", "Q4": "Q4_K", "Q3": "Q3_K", "Q2": "Q2_K"}  # of K mixes, by how they begin
_FALLBACK: Mapping[str, str] = {
    "Q2_K": "Q4_0",
    "Q3_K": "Q4_0",
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}  # what rows that a type's blocks do not fit get; all others IQ4_NL


def quantizing(model: Engines, type: str) -> float:
    """Seconds of one thread for all matrices in a type, or in what stands in for it."""
    rates = model.speed.quantizing
    taken = 0.0
    for tensor in model.model.tensors:
        used = type if ggml.fits(type, tensor.columns) else _FALLBACK.get(type, "IQ4_NL")
        taken += tensor.parameters / rates.get(used, min(rates.values()))
    return taken


def main_type(tag: str) -> str:
    """The type of most tensors of a stock mix: of Q4_K_M and Q4_K_S it is Q4_K, of IQ2_M IQ2_S, of IQ3_XS IQ3_S."""
    if tag in TYPES:
        return tag
    named = {"IQ3_M": "IQ3_S", "IQ3_XS": "IQ3_S", "IQ2_M": "IQ2_S"}
    return named.get(tag) or _MIXED.get(tag[:2], "Q4_K")


def near(bits: float) -> str:
    """The type that has about so many bits per weight."""
    return min((type for type in TYPES if type != "BF16"), key=lambda type: abs(sizes.STOCK_BITS.get(type, sizes.STOCK_BITS.get(f"{type}_M", 8.5)) - bits))


# ---- files ------------------------------------------------------------------------------------------------------------------------------------


def stock(variant: Variant) -> Cost:
    """A stock mix by llama-quantize."""

    def cost(prospect: Prospect, speed: Speed) -> Needs:
        if variant.tag == prospect.reference:
            at = engines(prospect, speed)
            return Needs(seconds=at.start, memory=PYTHON_MEMORY)  # a link
        return _written(prospect, speed, sizes.bits(prospect, variant), "" if variant.tag in {"BF16", "F16", "F32"} else main_type(variant.tag))

    return cost


def mixed(variant: Variant) -> Cost:
    """A planned mix by llama-quantize; the file is read before and after."""

    def cost(prospect: Prospect, speed: Speed) -> Needs:
        wanted = sizes.nominal(prospect, variant)
        return _written(prospect, speed, sizes.bits(prospect, variant), near(wanted), books=codebooks(wanted))

    return cost


def codebooks(bits: float) -> float:
    """The share of a planned mix of so many bits that is in types with a codebook, which take longer to find."""
    return min(0.9, max(0.0, (4.7 - bits) / 3))


def _written(prospect: Prospect, speed: Speed, bits: float, type: str, *, books: float = 0.0) -> Needs:
    at = engines(prospect, speed)
    written = gguf_bytes(at.model, bits)
    seconds = at.start + at.vocabulary + written / speed.disk + 2e-9 * at.model.parameters
    if type:
        slow = sum(quantizing(at, other) for other in BOOKS) / len(BOOKS)
        seconds += ((1 - books) * quantizing(at, type) + books * slow) / speed.threads
        seconds += speed.tables if books or type in BOOKS else 0.0
    return Needs(seconds=seconds, memory=PYTHON_MEMORY + at.reader + 8 * at.model.shape.largest, disk=written)


def bnb(prospect: Prospect, speed: Speed) -> Needs:
    """Plain NF4."""
    return _nf4(prospect, speed, sizes.NF4_BITS)


def nf4(variant: Variant) -> Cost:
    """Planned NF4; the network is outlined once more, to know its layers."""

    def cost(prospect: Prospect, speed: Speed) -> Needs:
        return _nf4(prospect, speed, sizes.bits(prospect, variant), outlines=1)

    return cost


def _nf4(prospect: Prospect, speed: Speed, bits: float, *, outlines: int = 0) -> Needs:
    at = engines(prospect, speed)
    # what is not in a layer stays in 16 bits
    run = at.model.parameters - at.model.predicting
    outside = max(0, run - sum(tensor.parameters for tensor in at.model.matrices))
    written = round((run - outside) * bits / 8) + 2 * outside + configuration(prospect)
    seconds = at.torch + at.load + at.python(0.4 + 0.3 * outlines) + NF4_PACKED * sum(tensor.parameters for tensor in at.model.matrices)
    return Needs(seconds=seconds + written / speed.disk, memory=TORCH_MEMORY + at.model.weights + 2 * at.model.seeing + round(0.6 * run), disk=written)


# ---- passes over calibration text -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Pass:
    """Passes forward and backward over calibration text, on the device that there is."""

    at: Engines
    context: int
    count: int  # windows that there are
    shape: room.Shape
    way: room.Room

    def forward(self, windows: float) -> float:
        """Seconds of passes forward, with logits everywhere."""
        at, width = self.at, self.shape.width
        if (gpu := at.speed.gpu) is None:
            return windows * at.forward(self.context, self.context)
        computing = at.operations(self.context, self.context) / (0.6 * gpu.operations * (1 if width == 4 else GPU_HALVES))
        reading = width * at.model.active / gpu.bandwidth
        bus = 2 * at.model.parameters / gpu.bus if self.way.streamed else 0.0
        return windows * (at.model.depth * at.speed.call / 2 + max(computing, reading, bus))

    def gradients(self, windows: float, groups: int) -> float:
        """Backward passes end, on average, half way when there are several groups; streamed layers are computed once more."""
        whole = groups * (1 + BACKWARD / 2) + BACKWARD / 2 + (groups if self.way.streamed else 0)
        return self.forward(windows) * whole

    @property
    def operations(self) -> float:
        """A second, of large matrix products."""
        if (gpu := self.at.speed.gpu) is not None:
            return 0.6 * gpu.operations
        return PRODUCTS * self.at.rate(self.at.speed.narrow, self.at.speed.wide) * self.at.threads

    @property
    def bandwidth(self) -> float:
        """Bytes a second from memory."""
        return self.at.speed.gpu.bandwidth if self.at.speed.gpu is not None else self.at.bandwidth(self.at.speed.threads)

    @property
    def memory(self) -> int:
        """Bytes of the process without errors; those of a GPU count as well, for the host holds the weights."""
        return TORCH_MEMORY + room.needed(self.shape, context=self.context, streamed=self.way.streamed, homes=True)


def _passes(prospect: Prospect, speed: Speed, *, sums: int = 0) -> _Pass:
    """Raises UnsupportedModel when memory is too small for the model."""
    at, context = engines(prospect, speed), prospect.recipe.evaluation.context
    memory = int(speed.gpu.memory * room.SHARE) if speed.gpu is not None else _memory(prospect, speed)
    width = 2 if at.model.halves and speed.gpu is not None else 4
    shape = replace(at.model.shape, width=width)
    way = room.room(shape, context=context, memory=memory, homes=speed.gpu is None, sums=sums)
    return _Pass(at=at, context=context, count=windows(prospect.recipe.calibration, context), shape=shape, way=way)


def _memory(prospect: Prospect, speed: Speed) -> int:
    """As `room.memory` finds it inside a stage."""
    total, allowed = speed.ram or int(psutil.virtual_memory().total), prospect.settings.memory_gib
    return (total if allowed is None else min(total, int(allowed * 2**30))) // 2


def possible(tensor: Tensor) -> list[str]:
    """The types in which a tensor makes an error."""
    return [type for type in TYPES if type != "BF16" and ggml.fits(type, tensor.columns)]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How calibration text is read for sensitivities and Hessians."""

    run: _Pass
    windows: int
    groups: int  # of tensors: how often the windows are read
    sums: int  # bytes of what is summed up for the largest of these
    hessians: int  # bytes of these, among them

    @property
    def streamed(self) -> bool:
        """Layers come to the device one at a time."""
        return self.run.way.streamed

    @property
    def memory(self) -> int:
        """Bytes at the peak: the pass, and the sums of one group."""
        return self.run.memory + self.sums


def reading(prospect: Prospect, speed: Speed) -> Reading:
    """Raises UnsupportedModel when memory is too small for the model."""
    rounding = any(entry.rounding for entry in prospect.recipe.variants.dynamic)
    tensors = outline(prospect).tensors
    run = _passes(prospect, speed, sums=sum(room.held(tensor, hessian_sizes.OWN, rounding=rounding) for tensor in tensors))
    each = [room.held(tensor, run.way.free, rounding=rounding) for tensor in tensors]
    groups = hessian_sizes.grouped(each, run.way.free)
    return Reading(
        run=run,
        windows=min(run.count, max(TYPICAL, math.ceil(hessian_sizes.TOKENS / run.context) if rounding else 0)),
        groups=len(groups),
        sums=max((sum(each[place] for place in group) for group in groups), default=0),
        hessians=sum(hessian_sizes.hessian_bytes(tensor, run.way.free) for tensor in tensors) if rounding else 0,
    )


def sensitivity(prospect: Prospect, speed: Speed) -> Needs:
    """Squared gradients, weighed by the errors of all types, and Hessians where mixes are rounded anew; by probes where memory does not hold the model."""
    try:
        found = reading(prospect, speed)
    except UnsupportedModel:
        return probed(prospect, speed)
    run, at, model, count = found.run, found.run.at, found.run.at.model, found.windows
    rates = speed.quantizing
    sampled = [(tensor, rows.most(tensor) * tensor.columns) for tensor in model.tensors]
    made = sum(values * (sum(1 / rates[type] for type in possible(tensor)) + SQUARED * len(TYPES)) for tensor, values in sampled)
    added = 12 * count * sum(values for _, values in sampled) / run.bandwidth
    products = HALF * 2 * sum(tensor.parameters * tensor.columns for tensor in model.tensors) * count / run.operations if found.hessians else 0.0
    finding = at.torch + at.load + 2 * at.header + FOUND * model.parameters
    rounded = WATCHED * run.forward(min(run.count, ROUNDED))
    return Needs(
        seconds=finding + rounded + run.gradients(count, found.groups) + added + products + (made + speed.tables) / speed.threads + found.hessians / speed.disk,
        memory=found.memory + read(prospect.recipe.calibration) * 3,
        disk=4 * count * len(model.tensors) * len(TYPES) + 4 * model.inputs + found.hessians,
        gpu=True,
    )


def probed(prospect: Prospect, speed: Speed) -> Needs:
    """A pass of llama.cpp for each probe, whose files are made for it."""
    at, context = engines(prospect, speed), prospect.recipe.evaluation.context
    tokens = context * min(PROBED, windows(prospect.recipe.calibration, context))
    passes = PROBES * 1.2 * at.decode(tokens, tokens, batch=512, bits=at.model.bits, threads=speed.threads)
    quantized = 3 * sum(quantizing(at, type) for type in ("Q3_K", "Q4_K")) / speed.threads
    return Needs(
        seconds=at.torch + passes + quantized + at.compared(tokens * PROBES, 1), memory=2 * at.model.weights + PYTHON_MEMORY, disk=8 * at.model.weights
    )


def nf4_sensitivity(prospect: Prospect, speed: Speed) -> Needs:
    """What NF4 does to each linear layer, weighed by gradients; every window meets each error, written out once more."""
    try:
        run = _passes(prospect, speed)
    except UnsupportedModel:
        return Needs()
    run = replace(run, shape=replace(run.shape, width=4))
    values = sum(tensor.parameters for tensor in run.at.model.matrices)
    count = min(run.count, TYPICAL)
    met = count * values * 12 / run.bandwidth  # dequantized, subtracted and multiplied, 4 bytes each
    seconds = run.at.torch + run.at.load + NF4_PACKED * values + run.gradients(count, 1) + met
    return Needs(seconds=seconds, memory=run.memory + round(0.52 * values), disk=8 * count * len(run.at.model.matrices), gpu=True)


# ---- planning and rounding --------------------------------------------------------------------------------------------------------------------


def mix(entry: Dynamic) -> Cost:
    """The plan: a dry run of llama-quantize, and an integer program with a choice for each matrix."""

    def cost(prospect: Prospect, speed: Speed) -> Needs:
        at = engines(prospect, speed)
        header = at.header if entry.fit is not None else 0.0  # which tells how large the cache is
        return Needs(seconds=at.start + header + at.vocabulary + at.python(0.45 + 0.004 * len(at.model.tensors)), memory=2 * PYTHON_MEMORY)

    return cost


def nf4_mix(variant: Variant) -> Cost:
    """The plan of NF4: a choice of two for each linear layer."""
    del variant

    def cost(prospect: Prospect, speed: Speed) -> Needs:
        at = engines(prospect, speed)
        return Needs(seconds=at.torch + at.python(0.2 + 0.001 * len(at.model.matrices)), memory=TORCH_MEMORY)

    return cost


def rounded(variant: Variant, *, first: bool = True) -> Cost:
    """Every matrix of a planned file rounded anew, but what a mix before it holds in the same type, unless it is the `first`.

    The fewer bits, the more of it in types with a codebook.
    """

    def cost(prospect: Prospect, speed: Speed) -> Needs:
        try:
            way = _passes(prospect, speed).way
        except UnsupportedModel:
            return Needs()
        at, bits = engines(prospect, speed), sizes.bits(prospect, variant)
        books = codebooks(sizes.nominal(prospect, variant))
        each = (1 - books) / (SCALAR * speed.rounding) + books / (CODEBOOK * speed.rounding)
        taken = 0.0
        for tensor in at.model.tensors:
            counted = hessian_sizes.count(tensor, way.free)
            parts = counted * len(hessian_sizes.parts(tensor.rows // counted))  # that can be worked on at the same time
            products = (9 * tensor.parameters * tensor.columns + 2.7 * counted * tensor.columns**3) / (FACTORED * speed.wide)
            share = 1.0 if first else 1 - AGAIN[tensor.columns % 256 == 0]
            taken += share * ((tensor.rows + parts * hessian_sizes.BEGUN) * tensor.columns * each + products) / min(speed.threads, parts)
        written = gguf_bytes(at.model, bits)
        widest = max((tensor.columns for tensor in at.model.tensors), default=0)
        memory = TORCH_MEMORY + 8 * at.model.shape.largest + 28 * widest**2 + written
        return Needs(seconds=at.torch + 3 * at.header + 2 * written / speed.disk + taken, memory=memory, disk=written)

    return cost
