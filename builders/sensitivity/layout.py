"""Finds every quantizable tensor of a 16-bit GGUF in the transformers model it was converted from, by the bytes of its rows.

The converter permutes rows (Llama's q and k), stacks experts, splits what transformers 5 keeps fused (gate and up, q, k and v), transposes, and turns the keys
of latent attention (MLA) head by head. No rule for any architecture stands here: a row of the GGUF is looked up among the rows of all parameters, and what was
found is compared byte by byte.
Not covered: tensors whose values the converter changed (scaled, folded with another), or which transformers does not load; they are an error.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from gguf import ReaderTensor

from builders.sensitivity.table import Tensor
from config.errors import MeasurementError, UnsupportedModel
from config.progress import counted
from engines import gguf_tensors
from engines import quantizable as names

Rows = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Words = npt.NDArray[np.uint16]  # the bytes of rows, in pairs

DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}

_CHUNK = 2**22  # values hashed at a time


@dataclass(frozen=True, kw_only=True)
class View:
    """How a parameter is read to find a tensor's rows in it."""

    transposed: bool  # its last two dimensions the other way round
    heads: int = 0  # its rows as those of so many heads, of each
    first: int = 0  # the first ones only; all of them where there are no heads


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Rows of one tensor that are rows of one parameter. Row n of a parameter (experts, rows, columns) counts through all experts."""

    parameter: str
    view: View
    targets: Rows  # rows of the tensor
    sources: Rows  # rows of the parameter, ascending; as many

    @property
    def transposed(self) -> bool:
        """Whether its rows are the parameter's columns."""
        return self.view.transposed


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where one tensor of the GGUF lies in the model."""

    tensor: Tensor
    segments: tuple[Segment, ...]


def quantizable(gguf: Path, imatrix: Path | None = None) -> list[ReaderTensor]:
    """The tensors that llama-quantize would quantize, in the file's order: two dimensions or more, no norms, routers or other small things.

    With an importance matrix, those that it says nothing about are left out: llama.cpp never multiplies anything by them, so no type of theirs does anything.
    """
    unused = frozenset[str]() if imatrix is None else frozenset(names.without_importances(gguf, imatrix))
    return [tensor for tensor in gguf_tensors.read(gguf) if _allowed(tensor) and tensor.name not in unused]


def described(tensor: ReaderTensor) -> Tensor:
    """What the table says of a tensor. Its `shape` counts columns, rows, experts."""
    columns, rows, *experts = (int(size) for size in tensor.shape)
    count = int(np.prod(experts)) if experts else 1
    return Tensor(name=tensor.name, rows=rows * count, columns=columns, experts=count)


def find(tensors: Sequence[ReaderTensor], network: torch.nn.Module) -> list[Placement]:
    """Every tensor's place among the network's parameters, in the order given.

    Equal rows are told apart by order: of tensors, of parameters and of rows. Raises UnsupportedModel that names a tensor that is not there.
    """
    index = _Index(parameters={name: parameter for name, parameter in network.named_parameters() if parameter.ndim in (2, 3)})
    placed = {tensor.name: _place(tensor, index) for tensor in counted(sorted(tensors, key=lambda tensor: natural(tensor.name)), "tensors")}
    return [placed[tensor.name] for tensor in tensors]


def matrix(parameter: torch.Tensor, view: View) -> torch.Tensor:
    """A parameter or its gradient as rows (experts · rows, columns), without a copy unless it is turned."""
    if view.heads:
        parameter = parameter.reshape(view.heads, -1, parameter.shape[-1])[:, : view.first]
    return (parameter.transpose(-1, -2) if view.transposed else parameter).reshape(-1, parameter.shape[-2 if view.transposed else -1])


def part(parameter: torch.Tensor, segment: Segment, sources: torch.Tensor) -> torch.Tensor:
    """The rows (n, columns) of a parameter or its gradient that a segment names; `sources` are the segment's, on the parameter's device."""
    rows = matrix(parameter, segment.view)
    first, last = int(segment.sources[0]), int(segment.sources[-1])
    if last - first + 1 == len(segment.sources):  # ascending: all rows between
        return rows[first : last + 1]
    return rows[sources]


def natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts blk.2 before blk.10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _allowed(tensor: ReaderTensor) -> bool:
    return any(int(size) > 1 for size in tensor.shape[1:]) and names.allowed(tensor.name)


@dataclass(frozen=True, kw_only=True)
class _Source:
    """The rows of one parameter by their hashes."""

    parameter: str
    view: View
    hashes: Hashes  # ascending
    rows: Rows  # of each hash; ascending among equal ones
    taken: npt.NDArray[np.bool_]  # rows that a tensor has already; changed in place

    def assign(self, wanted: Hashes, *, again: bool) -> tuple[Rows, Rows]:
        """Positions in `wanted` that are found here, and their rows; rows that are taken serve once more only when `again`."""
        free = np.ones(len(self.rows), dtype=bool) if again else ~self.taken[self.rows]
        hashes, rows = self.hashes[free], self.rows[free]
        order = np.argsort(wanted, kind="stable")
        ordered = wanted[order]
        rank = np.arange(len(ordered)) - np.searchsorted(ordered, ordered, side="left")  # the first of equal rows gets the first one, and so on
        low, high = (np.searchsorted(hashes, ordered, side=side) for side in ("left", "right"))
        if again:
            rank %= np.maximum(high - low, 1)
        found = low + rank < high
        chosen = rows[(low + rank)[found]]
        self.taken[chosen] = True
        return order[found].astype(np.int64), chosen


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Sources of rows that are equally long, and in which of them a hash is: asking each for every tensor takes the square of a model's tensors."""

    sources: tuple[_Source, ...]
    hashes: Hashes  # ascending, each once for every source that has it
    owners: Rows  # of each hash the place of its source

    @classmethod
    def of(cls, sources: tuple[_Source, ...]) -> "_Group":
        """Of these."""
        each = [np.unique(source.hashes) for source in sources]
        hashes = np.concatenate([*each, np.zeros(0, dtype=np.uint64)])
        order = np.argsort(hashes, kind="stable")
        return cls(sources=sources, hashes=hashes[order], owners=np.repeat(np.arange(len(each)), [len(one) for one in each])[order])

    def holding(self, wanted: Hashes) -> list[_Source]:
        """Those that have any of the rows, the one that has most of them first."""
        values, times = np.unique(wanted, return_counts=True)
        low, high = (np.searchsorted(self.hashes, values, side=side) for side in ("left", "right"))
        owned = high - low
        places = np.arange(owned.sum()) + np.repeat(low - (np.cumsum(owned) - owned), owned)
        held = np.bincount(self.owners[places], weights=np.repeat(times, owned), minlength=len(self.sources))
        return [self.sources[place] for place in np.argsort(-held, kind="stable") if held[place]]


@dataclass(frozen=True, kw_only=True)
class _Index:
    """Sources by their number of columns and dtype, made when they are first wanted."""

    parameters: dict[str, torch.nn.Parameter]
    made: dict[tuple[int, str, View], _Group] = field(default_factory=dict)

    def sources(self, columns: int, dtype: str, view: View) -> _Group:
        key = (columns, dtype, view)
        if key not in self.made:
            fitting = [name for name, parameter in self.parameters.items() if _fits(parameter.shape, columns, view)]
            self.made[key] = _Group.of(tuple(self._source(name, dtype, view) for name in sorted(fitting, key=natural)))
        return self.made[key]

    def _source(self, name: str, dtype: str, view: View) -> _Source:
        hashes = _hashes(words(matrix(self.parameters[name], view), dtype))
        order = np.argsort(hashes, kind="stable").astype(np.int64)
        return _Source(parameter=name, view=view, hashes=hashes[order], rows=order, taken=np.zeros(len(hashes), dtype=bool))


def _fits(shape: torch.Size, columns: int, view: View) -> bool:
    """Whether a parameter read so has rows of that many columns."""
    if view.heads:
        return len(shape) == 2 and shape[0] % view.heads == 0 and shape[0] // view.heads > columns
    return bool(shape[-2 if view.transposed else -1] == columns)


def _views(tensor: Tensor) -> Iterator[View]:
    """The ways in which the converter turns parameters, the plain one first: as it is, turned, and turned head by head (DeepSeek's kv_b_proj)."""
    yield View(transposed=False)
    yield View(transposed=True)
    if tensor.experts > 1:
        yield View(transposed=True, heads=tensor.experts, first=tensor.columns)


def _place(tensor: ReaderTensor, index: _Index) -> Placement:
    about, dtype = described(tensor), tensor.tensor_type.name
    if dtype not in DTYPES:
        raise MeasurementError(f"{tensor.name} is stored as {dtype}. Sensitivities need the 16-bit GGUF: name that one.")
    stored = tensor.data.reshape(about.rows, -1).view(np.uint16)
    wanted = _hashes(stored)
    missing: Rows = np.arange(about.rows, dtype=np.int64)
    segments: list[Segment] = []
    for view in _views(about):
        if not len(missing):
            break
        # the parameter that has most of the rows first: rows that several have (all zeros, say) then stay with their neighbours
        sources = index.sources(about.columns, dtype, view).holding(wanted)
        for again in (False, True):
            for source in sources:
                positions, rows = source.assign(wanted[missing], again=again)
                if len(positions):
                    segments.append(_segment(source, missing[positions], rows))
                    missing = np.delete(missing, positions)
    if len(missing):
        raise UnsupportedModel(
            f"{len(missing)} of the {about.rows} rows of {tensor.name} are rows of no parameter that transformers loads; the first is row {missing[0]}. "
            "The converter changed their values, or the GGUF is of another model: sensitivities cannot be taken from gradients here."
        )
    for segment in segments:
        found = matrix(index.parameters[segment.parameter], segment.view)
        if not np.array_equal(words(found[torch.from_numpy(segment.sources).to(found.device)], dtype), stored[segment.targets]):
            raise MeasurementError(f"Rows of {tensor.name} and {segment.parameter} have the same hash and different values. Change the hash's seed.")
    return Placement(tensor=about, segments=tuple(segments))


def _segment(source: _Source, targets: Rows, sources: Rows) -> Segment:
    order = np.argsort(sources, kind="stable")
    return Segment(parameter=source.parameter, view=source.view, targets=targets[order], sources=sources[order])


def words(rows: torch.Tensor, dtype: str) -> Words:
    """Rows (n, columns) as the GGUF stores them in that type, in words of 16 bits."""
    return rows.detach().to(DTYPES[dtype]).cpu().contiguous().view(torch.int16).numpy().view(np.uint16)


def _hashes(rows: Words) -> Hashes:
    """A multilinear hash of each row modulo 2^64: rows that differ collide with a probability of 2^-48 at most."""
    factors = np.random.default_rng(0).integers(0, 2**64, rows.shape[1], dtype=np.uint64, endpoint=False) | np.uint64(1)
    step = max(1, _CHUNK // rows.shape[1])
    return np.concatenate([rows[first : first + step].astype(np.uint64) @ factors for first in range(0, len(rows), step)])
