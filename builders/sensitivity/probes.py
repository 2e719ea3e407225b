"""Measures sensitivities through llama.cpp alone: the shape of the table from weighted errors, its scale from measured probes of groups of tensors.

A tensor's weighted error e = Σ_rows Σ_columns E[x²] (W - Q)² is what llama.cpp's quantizers make small: the squared error of the matrix's output, when its
inputs do not correlate. How much such an error does to the model's answers depends on what the matrix is for and on how deep it lies, so the cost of a type is
taken as role · depth · e, and the factors are found from probes: every role once, in all layers, and every depth once, in all roles, is stored in a small type,
and the KL divergence is measured. The factors that give each probe its divergence are found by raking (Deming & Stephan, "On a least squares adjustment of a
sampled frequency table when the expected marginal totals are known", 1940). Mixes like planned ones are measured last: they correct the level of all
costs, which planning does not depend on but predictions do, and by as much as they still scatter the error of the method is stated.

Costs: a pass of the calibration windows for each probe and each of these mixes, and one of the 16-bit model for every TOGETHER files at most, which lie on disk
meanwhile, each nearly as large as the 16-bit file. What was quantized for the files stays in memory, about half of the 16-bit file.
Not covered: errors of two tensors that cancel or add up, and inputs that correlate; the Fisher information knows the one and the other.
"""

import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from gguf import ReaderTensor

from builders import calibrate, matrices
from builders.assemble import Assembler
from builders.calibrate import Windows
from builders.contents import place
from builders.sensitivity import importances, layout, sample, weigh
from builders.sensitivity.importances import About, Entry
from builders.sensitivity.table import TYPES, Mix, Sensitivity, Tensor
from config.errors import MeasurementError
from config.progress import counted, report, within
from engines import ggml, llama
from engines.model import Doubles, Floats, log_softmax

WINDOWS = 32  # of calibration text, at most
HIDDEN = 16  # windows whose hidden states give the output matrix its importances
DEPTHS = 8  # groups of neighbouring layers, at most
PROBED = ("Q3_K", "Q4_0")  # of these the first that fits a tensor: an error well above what computing in 8 bits makes, and small enough for a second order
CHECKED = (3.0, 4.0, 5.5)  # bits per weight of the mixes that are measured last
LEAST = 0.1  # relative error that is stated at least: by so much groups probed in other types were off from what the table says of them, on two models
TOGETHER = 8  # files and models at a time, at most
ROUNDS = 200  # of raking

_BLOCK = 2**20  # logits compared at a time


def measure(
    out: Path, *, model: Path, gguf: Path, imatrix: Path, chat: Sequence[Path], plain: Sequence[Path], tokens: int, context: int, threads: int
) -> dict[str, Any]:
    """Write `sensitivity.json`, `products.npy` and `importances.gguf` from WINDOWS windows of `context` tokens at most, out of `tokens` of calibration text.

    `model` is the folder with template and tokenizer, or the GGUF file itself. Returns `provider`, `windows`, `tokens`, `relative_error` (of the worst of the
    typical mixes), `unreached` (tensor: experts that calibration never reached), `probes` (the nats of each group's), and `checked`: of each `mix` that
    was measured last the nats that were `predicted`, before the level was corrected, and those `measured`.
    Raises ConfigurationError, MeasurementError, ToolError.
    """
    stored = layout.quantizable(gguf, imatrix)
    tensors = tuple(layout.described(tensor) for tensor in stored)
    with llama.open_vocabulary(gguf) as vocabulary, calibrate.voice(model, threads=threads) as by:
        text = calibrate.windows(by, chat, plain, tokens=tokens, context=min(context, vocabulary.trained_context))[:WINDOWS]
    entries, unreached = _importances(out / importances.RESULT, imatrix, gguf, tensors, text[:HIDDEN], threads)
    weights = importances.load(out / importances.RESULT)
    errors = weighted_errors(stored, tensors, entries, threads=threads)
    assembler = Assembler(gguf, weights, threads=threads)
    probed = [next((type for type in PROBED if not np.isnan(row[TYPES.index(type)])), "BF16") for row in errors]
    found = groups(tensors)
    mixes = {group.name: {tensors[i].name: probed[i] for i in group.tensors} for group in (*found.roles, *found.depths)}
    measured = divergences(assembler, mixes, text, threads=threads)
    if not measured.any():
        raise MeasurementError("No probe changed what the model answers, so no sensitivity is known. Look at the upstream weights and at the calibration text.")
    table = fitted(tensors, errors, [TYPES.index(type) for type in probed], found, measured)
    planned = {f"{bits} bits": sample.greedy(table, bits) for bits in CHECKED}
    checked = divergences(assembler, planned, text, threads=threads).mean(axis=1)
    predicted = [table.predict(mix).mean for mix in planned.values()]
    level, error = correction(predicted, checked)
    table = replace(table, products=np.float32(math.sqrt(level)) * table.products, systematic=error)
    table.save(out)
    return {
        "provider": table.provider,
        "windows": len(text),
        "tokens": int(text.size),
        "relative_error": sample.relative_error(table),
        "unreached": unreached,
        "probes": dict(zip(mixes, measured.mean(axis=1).tolist(), strict=True)),
        "checked": [{"mix": name, "predicted": one, "measured": float(other)} for name, one, other in zip(planned, predicted, checked, strict=True)],
    }


@dataclass(frozen=True, kw_only=True)
class Group:
    """Tensors that are probed together."""

    name: str
    tensors: tuple[int, ...]  # their places in the table


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Each tensor in one group by what it is for, and those in layers in another by where they lie."""

    roles: tuple[Group, ...]
    depths: tuple[Group, ...]


def role(tensor: Tensor) -> str:
    """What a tensor is for: its name without its layer's number."""
    return re.sub(r"^blk\.\d+\.", "", tensor.name)


def groups(tensors: Sequence[Tensor]) -> Groups:
    """Each role by itself; layers in at most DEPTHS depths of equally many neighbours, none when there is a single layer."""
    layer = {i: number for i, tensor in enumerate(tensors) if (number := place(tensor.name)[0]) is not None}
    layers = sorted(set(layer.values()))
    roles: dict[str, list[int]] = {}
    for i, tensor in enumerate(tensors):
        roles.setdefault(role(tensor), []).append(i)
    parts = np.array_split(layers, min(DEPTHS, len(layers))) if len(layers) > 1 else []
    return Groups(
        roles=tuple(Group(name=name, tensors=tuple(members)) for name, members in roles.items()),
        depths=tuple(Group(name=f"layers {part[0]} to {part[-1]}", tensors=tuple(i for i in layer if layer[i] in part)) for part in parts),
    )


def weighted_errors(stored: Sequence[ReaderTensor], tensors: Sequence[Tensor], entries: Mapping[str, Entry], *, threads: int) -> Doubles:
    """The weighted error of every tensor (tensors, TYPES), NaN where it cannot have the type. Each expert counts by the share of tokens that reached it."""
    errors = np.full((len(tensors), len(TYPES)), np.nan)
    for i, (item, tensor) in enumerate(counted(list(zip(stored, tensors, strict=True)), "tensors")):
        weights, counts = entries[tensor.name].means, entries[tensor.name].counts
        types = weigh.possible(tensor, {tensor.name: weights})
        errors[i, types] = 0
        parts = matrices.data(item).reshape(tensor.experts, tensor.rows // tensor.experts, -1)
        for part, weight, share in zip(parts, weights, counts / counts.sum(), strict=True):  # one expert at a time: all may be more than memory holds
            values = ggml.dequantize(part, item.tensor_type.name, tensor.columns, threads=threads)
            errors[i, types] += [share * _weighted_error(values, TYPES[type], weight, threads) for type in types]
    return errors


def _weighted_error(values: Floats, type: str, weights: Floats, threads: int) -> float:
    """Σ_rows Σ_columns weights (columns,) · error² of storing values (rows, columns) in a type."""
    error = matrices.error(values, type, importances=weights, threads=threads)
    return float(np.einsum("rc,c->", np.square(error), weights, dtype=np.float64))


def factors(errors: Doubles, found: Groups, roles: Doubles, depths: Doubles) -> Doubles:
    """What to multiply each tensor's error (tensors,), in the type that was probed, with, so that sums over groups are the divergences of roles and depths.

    Together the depths are as large as the roles in layers: where the two disagree, since a second order is not all, the roles are right.
    """
    result = np.ones(len(errors))
    layered = sorted(i for group in found.depths for i in group.tensors)
    within = [i for i, group in enumerate(found.roles) if set(group.tensors) <= set(layered)]
    scaled = depths * (roles[within].sum() / depths.sum()) if depths.sum() > 0 else depths
    for _ in range(ROUNDS if len(found.depths) else 1):
        for group, wanted in [*zip(found.depths, scaled, strict=True), *zip(found.roles, roles, strict=True)]:
            members = list(group.tensors)
            if (sum_ := float((result[members] * errors[members]).sum())) > 0:
                result[members] *= wanted / sum_
    return result


def fitted(tensors: tuple[Tensor, ...], errors: Doubles, probed: Sequence[int], found: Groups, measured: Doubles) -> Sensitivity:
    """The table from weighted errors (tensors, TYPES), the type (place in TYPES) in which each tensor was probed, and the divergences (groups, windows).

    A window's costs are the mean ones times what the tensor's role shows in this window: the spread over windows is that of the probes.
    """
    means = measured.mean(axis=1)
    count = len(found.roles)
    scale = factors(errors[np.arange(len(tensors)), probed], found, means[:count], means[count:])
    profile = np.empty((measured.shape[1], len(tensors)))
    for group, row, mean in zip(found.roles, measured, means, strict=False):
        profile[:, list(group.tensors)] = (row / mean if mean > 0 else np.ones_like(row))[:, None]
    costs = profile[:, :, None] * (scale[:, None] * errors)[None]
    return Sensitivity(provider="probes", tensors=tensors, types=TYPES, products=np.sqrt(2 * costs).astype(np.float32))


def correction(predicted: Sequence[float], measured: Sequence[float] | Doubles) -> tuple[float, float]:
    """The factor that predictions of n mixes lack, and the relative error of another mix's prediction once they have it, LEAST at least.

    The factor is the geometric mean of measured over predicted; the error s √(1 + 1/n) with s the standard deviation of their logarithms.
    Raises MeasurementError when a mix has no divergence.
    """
    if min(*predicted, *measured) <= 0:
        raise MeasurementError("A mix of small types answers exactly like the 16-bit model, so no sensitivity is known. Look at the calibration text.")
    logs = np.log(np.asarray(measured) / np.asarray(predicted))
    return math.exp(logs.mean()), max(LEAST, float(logs.std(ddof=1)) * math.sqrt(1 + 1 / len(logs)))


def divergences(assembler: Assembler, mixes: Mapping[str, Mix], text: Windows, *, threads: int) -> Doubles:
    """The KL divergence (mixes, windows), in nats per token of each window's later half, of files in which the tensors have these types, all else 16 bits.

    Raises MeasurementError that names a mix whose divergence is not finite, ToolError when llama.cpp cannot run the file.
    """
    gguf = assembler.gguf
    found = np.empty((len(mixes), len(text)))
    names = list(mixes)
    together = max(1, min(TOGETHER, psutil.virtual_memory().available // gguf.stat().st_size - 1))
    first = text.shape[1] // 2
    for start in range(0, len(names), together):
        with tempfile.TemporaryDirectory(prefix="sluice-probes-") as folder, ExitStack() as stack:
            files = [Path(folder) / f"{number}.gguf" for number in range(len(names[start : start + together]))]
            with within(start, len(names), "probes"):
                for file, name in counted(list(zip(files, names[start:], strict=False)), "probes"):
                    assembler.write(file, mixes[name])
            each = max(1, threads // len(files))
            reference, *models = (stack.enter_context(llama.open_model(file, context=text.shape[1], threads=each)) for file in (gguf, *files))
            pool = stack.enter_context(ThreadPoolExecutor(min(threads, len(files))))
            stack.enter_context(within(start * len(text), len(names) * len(text), "windows"))  # of all probes
            report(0, None, "windows")
            for number, window in enumerate(text):
                tokens = window.tolist()
                base = reference.logits(tokens, first)
                rows = pool.map(lambda model, base=base, tokens=tokens: divergence(base, model.logits(tokens, first)), models)
                found[start : start + len(files), number] = list(rows)
                report(len(files) * (number + 1), None, "windows")
    for name, row in zip(names, found, strict=True):
        if not np.isfinite(row).all():
            raise MeasurementError(f"The divergence of the probe {name!r} is not finite, so no sensitivity is known. Look at the upstream weights.")
    return found


def _importances(
    target: Path, imatrix: Path, gguf: Path, tensors: Sequence[Tensor], text: Windows, threads: int
) -> tuple[dict[str, Entry], dict[str, list[int]]]:
    """Write the completed importance matrix; returns its entries, and the experts that calibration never reached."""
    entries = importances.read(imatrix)
    names = {tensor.name for tensor in tensors}
    output = "output.weight" if "output.weight" in names else "token_embd.weight"
    own = {tensor.name: _like(tensor, tensors, entries) for tensor in tensors if tensor.name not in entries}
    if output in own:
        with llama.open_model(gguf, context=text.shape[1], threads=threads, hidden=True) as model:
            squares = (np.square(model.hidden(window.tolist()), dtype=np.float64).sum(axis=0) for window in counted(text, "windows"))
            states = sum(squares, start=np.zeros(own[output].sums.shape[1]))
        own[output] = Entry(sums=states[None], counts=np.array([float(text.size)]))
    done, unreached = importances.complete(entries, {tensor.name: tensor for tensor in tensors}, own)
    importances.write(target, done, About.of(imatrix))
    return done, unreached


def _like(tensor: Tensor, tensors: Sequence[Tensor], entries: Mapping[str, Entry]) -> Entry:
    """Importances for a tensor that llama-imatrix has none of: equal ones, as large as those of the same role elsewhere, so that errors can be compared."""
    same = [other.name for other in tensors if role(other) == role(tensor) and other.name in entries]
    level = float(np.mean([entries[name].means.mean() for name in same])) if same else 1.0
    return Entry(sums=np.full((tensor.experts, tensor.columns), level), counts=np.ones(tensor.experts))


def divergence(reference: Floats, variant: Floats) -> float:
    """Mean KL(reference || variant) in nats over rows of logits (rows, vocabulary)."""
    step = max(1, _BLOCK // reference.shape[1])
    total = 0.0
    for start in range(0, len(reference), step):
        p, q = (log_softmax(logits[start : start + step]) for logits in (reference, variant))
        total += float((np.exp(p) * (p - q)).sum())
    return max(0.0, total / len(reference)) if math.isfinite(total) else math.nan
