"""Weighs quantization errors by gradients: for each window, √(Σ g² δ² / T) over the values of a tensor, g = ∇ log p, for every tensor and type.

Errors are those of some rows, and stand for all (see `rows`).

One forward and one backward pass a window; labels are drawn from the model's own distribution. A parameter's gradient meets the errors of all its types the
moment it is complete and is freed at once, so that one gradient lives at a time. Errors of all tensors rarely fit into memory together: they are made for one
group of (tensor, type) after another, and the windows run again for each group.

`room` says what memory that takes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from gguf import ReaderTensor
from transformers import PreTrainedModel

from builders import matrices
from builders.calibrate import Windows
from builders.sensitivity import layout, rows
from builders.sensitivity.layout import Placement, Segment, View
from builders.sensitivity.room import DELTA
from builders.sensitivity.rows import Rows
from builders.sensitivity.table import TYPES, Tensor
from config.errors import MeasurementError, UnsupportedModel
from config.progress import counted, within
from engines import ggml
from engines.ggml import Bytes
from engines.model import Floats

LABELS = 1  # seed of the labels
NOT_FINITE = "Gradients are not finite, so no sensitivity is known. Look at the upstream weights."
_ROWS = 2**21  # probabilities summed up at a time when labels are drawn
_VALUES = 2**22  # values of a tensor that one thread quantizes at a time

Products = npt.NDArray[np.float32]
Window = npt.NDArray[np.int64]  # (T,)


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One tensor in one type: the least that a group holds."""

    tensor: int  # its place among the tensors
    type: int  # its place in TYPES


@dataclass(frozen=True, kw_only=True)
class _Task:
    """What the squared gradient of some rows of one parameter is multiplied with."""

    tensor: int
    types: list[int]
    parameter: str
    view: View
    rows: torch.Tensor  # of the parameter, all that the sample stands for
    weights: torch.Tensor  # Σ w² of each of them
    sample: torch.Tensor  # places among `rows`, ascending
    squares: torch.Tensor  # of the sample's errors: (types, rows · columns)


@dataclass(frozen=True, kw_only=True)
class Pass:
    """What stays the same over all windows and groups."""

    network: PreTrainedModel
    placements: Sequence[Placement]
    stored: Sequence[ReaderTensor]  # of the 16-bit GGUF, in the order of placements
    importances: Mapping[str, Floats]  # (columns,) or (experts, columns)
    threads: int
    memory: int  # bytes for the errors of one group
    frequent: Sequence[int] = ()  # tokens of the text, the most frequent first
    energies: dict[tuple[str, View], Floats] = field(default_factory=dict)  # Σ g² of each row of each parameter, read so, in one window
    held: list[tuple[list[Unit], list[_Task]]] = field(default_factory=list)  # the errors of the only group, which later windows need again


def possible(tensor: Tensor, importances: Mapping[str, Floats]) -> list[int]:
    """The types that a tensor can have, as places in TYPES."""
    known = tensor.name in importances
    return [i for i, type in enumerate(TYPES) if ggml.fits(type, tensor.columns) and (known or not ggml.needs_importances(type))]


def delta_bytes(tensors: Sequence[Tensor], units: Sequence[Unit]) -> int:
    """Bytes of the errors of these units, at most. BF16 is taken as exact, as it is in a BF16 GGUF; of F16 and F32 its error does a fortieth of Q8_0's."""
    return sum(DELTA * rows.most(tensors[unit.tensor]) * tensors[unit.tensor].columns for unit in units if TYPES[unit.type] != "BF16")


def grouped(tensors: Sequence[Tensor], importances: Mapping[str, Floats], memory: int) -> list[list[Unit]]:
    """Units in groups whose errors take at most `memory` bytes, in the tensors' order: a backward pass ends at the first layer of its group.

    Raises MeasurementError when a single unit takes more.
    """
    groups: list[list[Unit]] = [[]]
    room = memory
    for i, tensor in enumerate(tensors):
        for type in possible(tensor, importances):
            unit = Unit(tensor=i, type=type)
            size = delta_bytes(tensors, [unit])
            if size > memory:
                raise MeasurementError(
                    f"The quantization errors of {tensor.name} take {size} bytes for one type, and {memory} are there for all. Give the stage more memory."
                )
            if size > room:
                groups.append([])
                room = memory
            groups[-1].append(unit)
            room -= size
    return groups


def measure(job: Pass, windows: Windows, first: int) -> Products:
    """Products (windows, tensors, TYPES) of windows (n, T) that are number `first` and following; NaN where a tensor cannot have a type.

    Raises MeasurementError when gradients are not finite.
    """
    tensors = [placement.tensor for placement in job.placements]
    if not job.energies and any(rows.most(tensor) < tensor.rows for tensor in tensors):
        _look(job, windows[0], first)
    groups = grouped(tensors, job.importances, job.memory)
    products = np.full((len(windows), len(tensors), len(TYPES)), np.nan, dtype=np.float32)
    for turn, group in enumerate(groups):
        if job.held and job.held[0][0] == group:
            tasks = job.held[0][1]
        else:
            tasks = _tasks(job, group)
            if len(groups) == 1:
                job.held.append((group, tasks))
        for unit in group:
            products[:, unit.tensor, unit.type] = 0
        with _hooked(job.network, tasks) as into, within(turn * len(windows), len(groups) * len(windows), "windows"):
            for n, window in enumerate(counted(windows, "windows")):
                into[0] = products[n]
                backward(job.network, window, first + n)
        del tasks
    np.sqrt(products, out=products)
    if not np.isfinite(products[~np.isnan(products)]).all() or any(np.isnan(products[:, unit.tensor, unit.type]).any() for group in groups for unit in group):
        raise MeasurementError(NOT_FINITE)
    return products


def _look(job: Pass, window: Window, number: int) -> None:
    """Learn from one window which rows have large gradients."""
    read: dict[str, set[View]] = {}
    for placement in job.placements:
        for segment in placement.segments:
            read.setdefault(segment.parameter, set()).add(segment.view)

    def take(gradient: torch.Tensor, *, name: str) -> None:
        for view in read[name]:
            norms = torch.linalg.vector_norm(layout.matrix(gradient, view), dim=1)
            job.energies[name, view] = norms.square().float().cpu().numpy()

    with gradients(job.network, {name: partial(take, name=name) for name in read}):
        backward(job.network, window, number)


def _tasks(job: Pass, group: Sequence[Unit]) -> list[_Task]:
    """The errors of a group, on the network's device, in the order of the parameters' rows."""
    wanted: dict[int, list[int]] = {}
    for unit in group:
        if TYPES[unit.type] != "BF16":
            wanted.setdefault(unit.tensor, []).append(unit.type)
    return [task for i in counted(wanted, "tensors") for task in _tasks_of(job, i, wanted[i])]


def _tasks_of(job: Pass, i: int, types: list[int]) -> list[_Task]:
    """The errors of one tensor, a task for each parameter that has rows of it, and for frequent tokens."""
    placement, stored = job.placements[i], job.stored[i]
    data, about, importances = matrices.data(stored), placement.tensor, job.importances.get(stored.name)
    weights = _weights(data, stored.tensor_type.name, about.columns)
    device = job.network.device
    return [
        _Task(
            tensor=i,
            types=types,
            parameter=segment.parameter,
            view=segment.view,
            rows=torch.from_numpy(segment.sources[stratum.rows]).to(device),
            weights=torch.from_numpy(weights[segment.targets[stratum.rows]]).to(device),
            sample=torch.from_numpy(np.searchsorted(stratum.rows, stratum.sample)).to(device),
            squares=_squares(data, stored.tensor_type.name, about, segment.targets[stratum.sample], types, importances, threads=job.threads).to(device),
        )
        for segment in placement.segments
        for stratum in rows.strata(about, segment.targets, _energies(job, segment) * weights[segment.targets], job.frequent)
    ]


def _energies(job: Pass, segment: Segment) -> Floats:
    """Σ g² of a segment's rows in one window; none where no tensor is sampled, or the parameter had no gradient there."""
    found = job.energies.get((segment.parameter, segment.view))
    return np.zeros(len(segment.sources), dtype=np.float32) if found is None else found[segment.sources]


def _weights(data: Bytes, type: str, columns: int) -> Floats:
    """Σ w² of each row."""
    step = max(1, _VALUES // columns)
    parts = (ggml.dequantize(data[first : first + step], type, columns) for first in range(0, len(data), step))
    return np.concatenate([np.einsum("rc,rc->r", part, part) for part in parts])


def _squares(data: Bytes, type: str, about: Tensor, targets: Rows, types: list[int], importances: Floats | None, *, threads: int) -> torch.Tensor:
    """Squared errors (types, rows · columns) of some rows in some types."""
    made = torch.empty(len(types), len(targets), about.columns)
    each = None if importances is None else np.broadcast_to(importances, (about.experts, about.columns))

    def fill(row: int, expert: int, places: Rows) -> None:
        values = ggml.dequantize(data[targets[places]], type, about.columns)
        error = matrices.error(values, TYPES[types[row]], importances=None if each is None else each[expert])
        made[row, torch.from_numpy(places)] = torch.from_numpy(np.square(error))

    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(fill, row, *piece) for row in reversed(range(len(types))) for piece in _pieces(about, targets)]:
            done.result()
    return made.flatten(1)


def _pieces(about: Tensor, targets: Rows) -> list[tuple[int, Rows]]:
    """Experts and places of their rows in `targets`, in pieces of about _VALUES values, so that what quantizing one takes is little."""
    of = targets // (about.rows // about.experts)
    step = max(1, _VALUES // about.columns)
    found = []
    for expert in np.unique(of):
        places = np.flatnonzero(of == expert)
        found += [(int(expert), places[first : first + step]) for first in range(0, len(places), step)]
    return found


@contextmanager
def gradients(network: torch.nn.Module, takers: Mapping[str, Callable[[torch.Tensor], None]]) -> Iterator[None]:
    """While it is open, a backward pass hands the gradient of each parameter in `takers` to its function when it is complete, and keeps none."""

    def hand_over(parameter: torch.Tensor, *, take: Callable[[torch.Tensor], None]) -> None:
        gradient, parameter.grad = parameter.grad, None
        if gradient is not None:
            take(gradient)

    hooks = []
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in takers)
        if name in takers:
            hooks.append(parameter.register_post_accumulate_grad_hook(partial(hand_over, take=takers[name])))  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for parameter in network.parameters():
            parameter.requires_grad_(True)


@contextmanager
def _hooked(network: PreTrainedModel, tasks: Sequence[_Task]) -> Iterator[list[Products]]:
    """While it is open, a backward pass adds Σ g² δ² / T of each task to the array (tensors, types) in the list."""
    into: list[Products] = [np.empty((0, 0), dtype=np.float32)]
    of: dict[str, list[_Task]] = {}
    for task in tasks:
        of.setdefault(task.parameter, []).append(task)

    def take(gradient: torch.Tensor, *, users: list[_Task]) -> None:
        for task in users:
            into[0][task.tensor, task.types] += _product(layout.matrix(gradient, task.view), task).cpu().numpy()

    with gradients(network, {name: partial(take, users=users) for name, users in of.items()}):
        yield into


def _product(gradient: torch.Tensor, task: _Task) -> torch.Tensor:
    """Σ g² δ² (types,) over the rows of a task, from those of its sample."""
    chosen = task.rows[task.sample]
    found = torch.mv(task.squares, gradient[chosen].reshape(-1).square())
    if len(chosen) == len(task.rows):
        return found
    shares = torch.linalg.vector_norm(gradient, dim=1)[task.rows].square() * task.weights
    sampled = shares[task.sample].sum()
    return found * (shares.sum() / sampled) if sampled > 0 else found


def backward(network: PreTrainedModel, window: Window, number: int) -> None:
    """One pass: the gradient of Σ_t log p(y_t | x_<=t) / √T with labels y drawn from p. With respect to logits it is onehot(y) - p.

    Raises UnsupportedModel when the network has no backward pass.
    """
    ids = torch.from_numpy(window)[None].to(network.device)
    logits = network(input_ids=ids, use_cache=False).logits
    with torch.no_grad():
        seed = logits[0].float().softmax(-1)
        labels = _drawn(seed, np.random.default_rng([LABELS, number]).random(len(window)))
        seed.neg_()
        seed[torch.arange(len(window), device=seed.device), labels] += 1
        seed /= len(window) ** 0.5
    if not logits.requires_grad:
        raise UnsupportedModel("transformers has no backward pass for this model: its logits have no gradient.")
    try:
        logits.backward(gradient=seed[None].to(logits.dtype))
    except NotImplementedError as error:
        raise UnsupportedModel(f"transformers has no backward pass for this model: {error}.") from error


def _drawn(probabilities: torch.Tensor, uniform: npt.NDArray[np.float64]) -> torch.Tensor:
    """One label for each row of probabilities (T, vocabulary), by the inverse of the distribution function at a number in [0, 1)."""
    count, vocabulary = probabilities.shape
    at = torch.from_numpy(uniform).to(probabilities.device)[:, None]
    step = max(1, _ROWS // vocabulary)
    drawn = []
    for first in range(0, count, step):
        sums = probabilities[first : first + step].double().cumsum(-1)
        drawn.append(torch.searchsorted(sums, at[first : first + step] * sums[:, -1:], right=True)[:, 0].clamp(max=vocabulary - 1))
    return torch.cat(drawn)
