"""Sums up what the gradients of calibration text tell of each tensor, in one pass for planning and rounding: forward and backward once a window.

For planning: Σ g² of each value in a sample of rows (see `rows`), g = ∇ log p of a window, and how much of the tensor's Σ ‖g‖² ‖w‖² each window has. Errors of
no type are held meanwhile: the sums stand for every type that is weighed with them afterwards (`weigh`). For rounding: Σ gᵀg (`builders.rounding.hessians`).
The first windows also tell what the rounding of activations costs (`activations`).

A parameter's gradient is added the moment it is complete and freed at once, so that one gradient lives at a time. Memory: 4 bytes for each value of the
samples, and those of Hessians (`sizes.summed_bytes`). Where that does not fit, tensors come in groups, and the windows run again for each group.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from gguf import ReaderTensor
from transformers import PreTrainedModel

from builders import matrices
from builders.calibrate import Windows
from builders.rounding import hessians, sizes
from builders.sensitivity import fisher, layout, rows
from builders.sensitivity.layout import Placement, Segment
from builders.sensitivity.room import held
from builders.sensitivity.rows import Rows
from builders.sensitivity.table import Tensor
from config.errors import MeasurementError
from config.progress import counted, within
from engines import ggml
from engines.ggml import Bytes
from engines.model import Doubles, Floats

WATCHED = 8  # windows at the beginning that tell what rounding activations costs, which differs less between them
_VALUES = 2**22  # values that are dequantized at a time

Energies = Doubles  # (windows, tensors)
More = Callable[[Energies], int]
"""How many windows there should be, given the energies (windows, tensors) of those so far; no more than these when they are enough."""


@dataclass(frozen=True, kw_only=True)
class Pass:
    """What is gathered, and of what."""

    network: PreTrainedModel
    placements: Sequence[Placement]
    stored: Sequence[ReaderTensor]  # of the 16-bit GGUF, in the order of placements
    memory: int  # bytes for the sums of one group
    rounding: bool  # whether Hessians are wanted
    frequent: Sequence[int] = ()  # tokens of the text, the most frequent first
    watched: Callable[[], AbstractContextManager[None]] = nullcontext  # is open while the first WATCHED windows run


@dataclass(frozen=True, kw_only=True)
class Part:
    """Rows of one parameter that a sample stands for."""

    targets: Rows  # of the sample, in the tensor
    rows: torch.Tensor  # of the parameter, all of them
    weights: torch.Tensor  # Σ w² of each
    sample: torch.Tensor  # places among `rows`
    squares: torch.Tensor  # (sample, columns): Σ g² over the windows, each times what the sample has of its energy; added to in place

    def add(self, gradient: torch.Tensor, norms: torch.Tensor) -> torch.Tensor:
        """One window's gradient (all rows, columns), with Σ g² of each row; how much energy it has."""
        shares = norms[self.rows] * self.weights
        energy = shares.sum()
        squares = gradient[self.rows[self.sample]].float().square_()
        if len(self.sample) < len(self.rows):
            sampled = shares[self.sample].sum()
            squares *= torch.where(sampled > 0, energy / sampled, 1.0)
        self.squares.add_(squares)
        return energy


@dataclass(kw_only=True)
class Gathered:
    """What the windows add up to for one tensor."""

    place: int  # among the placements
    energies: torch.Tensor  # (windows,): Σ over rows of ‖g‖² ‖w‖²
    parts: list[Part] = field(default_factory=list)  # none where no window had a gradient
    sums: hessians.Sums | None = None  # for its Hessians


@dataclass(kw_only=True)
class _User:
    """The rows of one parameter that are one tensor's."""

    found: Gathered
    segment: Segment
    sources: torch.Tensor
    experts: Mapping[int, torch.Tensor]  # of the segment's rows those that are an expert's, for its Hessian
    parts: list[Part] | None = None  # chosen by the first gradient that comes

    def add(self, job: Pass, gradient: torch.Tensor, window: int) -> None:
        matrix = layout.matrix(gradient, self.segment.view)
        norms = torch.linalg.vector_norm(matrix, dim=1, dtype=torch.float32).square_()
        if self.parts is None:
            self.parts = _parts(job, self.found.place, self.segment, norms)
            self.found.parts += self.parts
        for part in self.parts:
            self.found.energies[window] += part.add(matrix, norms)
        if (sums := self.found.sums) is not None:
            own = layout.part(gradient, self.segment, self.sources).float()
            for expert, places in self.experts.items():
                sums.add(expert, own if len(self.experts) == 1 else own[places])


def grouped(tensors: Sequence[Tensor], memory: int, *, rounding: bool) -> list[list[int]]:
    """Places of tensors whose sums fit into memory together, at least one at a time, in the tensors' order: a backward pass ends at its group's first layer."""
    return sizes.grouped([held(tensor, memory, rounding=rounding) for tensor in tensors], memory)


def foretold(network: PreTrainedModel, *, rounding: bool) -> int:
    """About the bytes of all sums of a network, which may be on the meta device."""
    found = 0
    parts = (network.get_input_embeddings(), network.get_output_embeddings())  # type: ignore[no-untyped-call]
    tables = [part.weight for part in parts if part is not None]
    for parameter in network.parameters():
        if parameter.ndim in (2, 3):
            experts = parameter.shape[0] if parameter.ndim == 3 else 1
            name = rows.VOCABULARY[0] if any(parameter is table for table in tables) else ""
            tensor = Tensor(name=name, rows=experts * parameter.shape[-2], columns=parameter.shape[-1], experts=experts)
            found += held(tensor, sizes.OWN, rounding=rounding)
    return found


def gather(job: Pass, text: Windows, more: More) -> Iterator[list[Gathered]]:
    """The tensors, group by group, from as many of the windows (n, T) as `more` asks for of the first group, which are those of all groups.

    A group's sums are gone from memory when the next one is asked for, if the caller keeps none. Raises MeasurementError when gradients are not finite, and
    UnsupportedModel when the network has no backward pass.
    """
    groups = grouped([placement.tensor for placement in job.placements], job.memory, rounding=job.rounding)
    first = [_empty(job, place, len(text)) for place in groups[0]]
    done = _run(job, first, text, more)
    for one in first:
        one.energies = one.energies[:done]
    yield first
    del first
    for turn, group in enumerate(groups[1:]):
        found = [_empty(job, place, done) for place in group]
        with within(turn * done, (len(groups) - 1) * done, "windows"), _hooked(job, found) as number:
            for number[0], window in enumerate(counted(text[:done], "windows")):
                fisher.backward(job.network, window, number[0])
        yield found


def _run(job: Pass, found: Sequence[Gathered], text: Windows, more: More) -> int:
    """Let windows run until `more` wants no further ones; how many did."""
    done, wanted = 0, min(max(1, more(np.zeros((0, len(found))))), len(text))
    with _hooked(job, found) as number:

        def read(first: int, last: int) -> None:
            with within(first, wanted, "windows"):
                for number[0], window in enumerate(counted(text[first:last], "windows"), start=first):
                    fisher.backward(job.network, window, number[0])

        begun = min(WATCHED, wanted)
        with job.watched():
            read(0, begun)
        while done < wanted:
            read(max(done, begun), wanted)
            done = wanted
            energies = torch.stack([one.energies[:done] for one in found], dim=1).double().cpu().numpy()
            if not np.isfinite(energies).all():
                raise MeasurementError(fisher.NOT_FINITE)
            wanted = min(more(energies), len(text))
    return done


def _empty(job: Pass, place: int, windows: int) -> Gathered:
    tensor, device = job.placements[place].tensor, job.network.device
    found = Gathered(place=place, energies=torch.zeros(windows, device=device))
    if job.rounding:
        found.sums = hessians.Sums.empty(sizes.count(tensor, job.memory), tensor.columns, device)
    return found


@contextmanager
def _hooked(job: Pass, group: Sequence[Gathered]) -> Iterator[list[int]]:
    """While it is open, backward passes add to a group; the list holds the number of the window at hand."""
    number, of = [0], dict[str, list[_User]]()
    device = job.network.device
    for found in group:
        tensor, sums = job.placements[found.place].tensor, found.sums
        for segment in job.placements[found.place].segments:
            expert = segment.targets // (tensor.rows // (1 if sums is None else sums.count))
            experts = {int(one): torch.from_numpy(np.flatnonzero(expert == one)).to(device) for one in np.unique(expert)}
            user = _User(found=found, segment=segment, sources=torch.from_numpy(segment.sources).to(device), experts=experts)
            of.setdefault(segment.parameter, []).append(user)

    def take(gradient: torch.Tensor, *, users: list[_User]) -> None:
        for user in users:
            user.add(job, gradient, number[0])

    with fisher.gradients(job.network, {name: partial(take, users=users) for name, users in of.items()}):
        yield number


def _parts(job: Pass, place: int, segment: Segment, norms: torch.Tensor) -> list[Part]:
    """The samples of a segment's rows, chosen by the first gradient: Σ g² of each of the parameter's rows."""
    about, stored, device = job.placements[place].tensor, job.stored[place], job.network.device
    weights = _weights(matrices.data(stored)[segment.targets], stored.tensor_type.name, about.columns)
    energies = norms.cpu().numpy()[segment.sources] * weights
    return [
        Part(
            targets=segment.targets[stratum.sample],
            rows=torch.from_numpy(segment.sources[stratum.rows]).to(device),
            weights=torch.from_numpy(weights[stratum.rows]).to(device),
            sample=torch.from_numpy(np.searchsorted(stratum.rows, stratum.sample)).to(device),
            squares=torch.zeros(len(stratum.sample), about.columns, device=device),
        )
        for stratum in rows.strata(about, segment.targets, energies, job.frequent)
    ]


def _weights(data: Bytes, type: str, columns: int) -> Floats:
    """Σ w² of each row."""
    step = max(1, _VALUES // columns)
    parts = (ggml.dequantize(data[first : first + step], type, columns) for first in range(0, len(data), step))
    return np.concatenate([np.einsum("rc,rc->r", part, part) for part in parts])
