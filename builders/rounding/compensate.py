"""Chooses a matrix's quantized values so that the errors of its columns cancel on real inputs: same type, same bytes, a file like any other.

llama.cpp minimizes each value's own error. What matters is e H eᵀ a row, with e the error of the weights and H how errors of two columns count together.
Here columns are rounded one after another, and each one's error is made up for by the columns that follow (GPTQ: Frantar et al., 2022; eight columns at
a time where a type has a codebook, as in Tseng et al., "QuIP#", 2024). Each block's scales are llama.cpp's, chosen for the values that errors have changed.
Then every value is chosen once more with all others fixed.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from scipy.linalg import lapack

from builders.rounding import codes, sizes
from builders.rounding.codes import Codebook, Layout, Scalar
from config.errors import MeasurementError
from engines import ggml
from engines.ggml import Bytes
from engines.model import Doubles, Floats

SPAN = 32  # columns that are worked on together; the rest of the block, then of the matrix, hears of them afterwards
TOGETHER = 256  # rows for which all entries of a codebook are compared at once: more than that are no longer in the processor's cache
DAMPING = 0.3  # of the mean diagonal, added to it: with less, other text than calibration gains less or loses


@dataclass(frozen=True, kw_only=True)
class Metric:
    """How errors of a matrix's columns count together, damped and factored once for all rows."""

    hessian: Doubles  # (columns, columns)
    upper: Doubles  # U with UᵀU the inverse of hessian

    @cached_property
    def single(self) -> tuple[Floats, Floats]:
        """Both in 32 bits, once for all parts of the rows."""
        return self.hessian.astype(np.float32), self.upper.astype(np.float32)

    @classmethod
    def of(cls, hessian: Floats, damping: float = DAMPING) -> "Metric":
        """From H (columns, columns), symmetric and not all zero. Raises MeasurementError."""
        damped = hessian.astype(np.float64)
        mean = float(np.diag(damped).mean())
        if not np.isfinite(damped).all() or mean <= 0:
            raise MeasurementError("A Hessian of calibration text is zero or not finite. Delete the folder of statistics, so that it is measured again.")
        damped = damped / mean + np.eye(len(damped)) * damping
        # the inverse of H's own factor, which begins with its last column: a third of the time of inverting H and factoring that
        last_first = np.linalg.cholesky(damped[::-1, ::-1])
        return cls(hessian=damped, upper=lapack.dtrtri(last_first[::-1, ::-1], lower=0)[0])


def compensate(values: Floats, type: str, *, metric: Metric, plain: Bytes, threads: int = 1) -> Bytes:
    """The bytes (rows, row_bytes) of `values` (rows, columns) in `type`; `plain` is what llama.cpp made of them, with importances or without.

    No row has a larger error e H eᵀ than `plain`. Types whose codes cannot be replaced come out as `plain`. The result does not depend on `threads`.
    """
    kind = codes.layout(type)
    if kind is None:
        return plain
    out = plain.copy()
    hessian, _ = metric.single  # before threads ask for it

    def part(here: slice) -> None:
        data = _refined(_passed_on(values[here], type, kind, metric), values[here], type, kind, metric)
        better = _errors(data, type, values[here], hessian) < _errors(plain[here], type, values[here], hessian)
        out[here][better] = data[better]

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(part, sizes.parts(len(values))))
    return out


def _errors(data: Bytes, type: str, values: Floats, hessian: Floats) -> Floats:
    error = ggml.dequantize(data, type, values.shape[1]) - values
    return np.asarray(np.einsum("rc,rc->r", error @ hessian, error))


def _step(kind: Layout) -> int:
    return 1 if isinstance(kind, Scalar) else 8


def _diagonal(matrix: Doubles, step: int) -> Doubles:
    """The blocks on the diagonal of a square matrix, (columns / step, step, step)."""
    blocks = matrix.reshape(len(matrix) // step, step, len(matrix) // step, step)
    return np.asarray(blocks.diagonal(axis1=0, axis2=2).transpose(2, 0, 1))


def _each(kind: Layout) -> int:
    return 1 if isinstance(kind, Scalar) else int(kind.grid.shape[1])


class _Codes:
    """The codes of a matrix while they are chosen, columns first."""

    def __init__(self, kind: Layout, columns: int, rows: int) -> None:
        self.kind = kind
        self.indices = np.zeros((columns // _each(kind), rows), dtype=np.uint16)
        self.negative = np.zeros((columns if isinstance(kind, Codebook) else 0, rows), dtype=bool)

    def replaced(self, data: Bytes, type: str) -> Bytes:
        signs = np.packbits(self.negative, axis=0, bitorder="little").T if isinstance(self.kind, Codebook) else None
        return codes.replaced(data, type, np.ascontiguousarray(self.indices.T), signs)


def _passed_on(values: Floats, type: str, kind: Layout, metric: Metric) -> Bytes:
    """Rounds from left to right; what is rounded wrong is made up for by the columns to the right."""
    rows, columns = values.shape
    _, single = metric.single
    importances = np.diag(metric.hessian).astype(np.float32)
    work = np.ascontiguousarray(values.T)
    parts = []
    block, step = max(GGML_QUANT_SIZES[GGMLQuantizationType[type]][0], SPAN), _step(kind)
    factors = _diagonal(metric.upper, step).transpose(0, 2, 1)
    distances, solved = np.linalg.inv(factors @ factors.transpose(0, 2, 1)), np.linalg.inv(factors).astype(np.float32)
    for first in range(0, columns, block):
        end = min(first + block, columns)
        part = ggml.quantize(np.ascontiguousarray(work[first:end].T), type, importances=importances[first:end])
        scale, offset = (np.ascontiguousarray(one.T) for one in codes.scales(part, type, end - first))
        chosen = _Codes(kind, end - first, rows)
        errors = np.zeros((end - first, rows), dtype=np.float32)
        for start in range(first, end, SPAN):
            stop = min(start + SPAN, end)
            for at in range(start, stop, step):
                here, inside = slice(at, at + step), slice(at - first, at - first + step)
                rounded = _choose(kind, work[here], scale[inside], offset[inside], distances[at // step], chosen, at - first)
                error = solved[at // step] @ (rounded - work[here])
                errors[inside] = error
                work[at + step : stop] += single[here, at + step : stop].T @ error
            work[stop:end] += single[start:stop, stop:end].T @ errors[start - first : stop - first]
        work[end:] += single[first:end, end:].T @ errors
        parts.append(chosen.replaced(part, type))
    return np.concatenate(parts, axis=1)


def _refined(data: Bytes, values: Floats, type: str, kind: Layout, metric: Metric) -> Bytes:
    """Chooses each value, or each eight, anew with all others fixed; each change lowers e H eᵀ."""
    rows, columns = values.shape
    scale, offset = (np.ascontiguousarray(one.T) for one in codes.scales(data, type, columns))
    now = np.ascontiguousarray(ggml.dequantize(data, type, columns).T)
    chosen = _read(kind, now, scale, offset)
    single, _ = metric.single
    gradient = single @ (now - values.T)
    step = _step(kind)
    own = _diagonal(metric.hessian, step)
    solved = np.linalg.inv(own).astype(np.float32)
    for start in range(0, columns, SPAN):
        stop = min(start + SPAN, columns)
        changes = np.zeros((stop - start, rows), dtype=np.float32)
        for at in range(start, stop, step):
            here = slice(at, at + step)
            old = now[here]
            target = old - solved[at // step] @ gradient[here]
            change = _choose(kind, target, scale[here], offset[here], own[at // step], chosen, at, old=old) - old
            changes[at - start : at - start + step] = change
            now[here] = old + change
            gradient[start:stop] += single[start:stop, here] @ change
        gradient[:start] += single[:start, start:stop] @ changes
        gradient[stop:] += single[stop:, start:stop] @ changes
    return chosen.replaced(data, type)


def _read(kind: Layout, now: Floats, scale: Floats, offset: Floats) -> _Codes:
    """The codes of dequantized values."""
    columns, rows = now.shape
    chosen = _Codes(kind, columns, rows)
    if isinstance(kind, Scalar):
        for column in range(columns):
            chosen.indices[column] = _nearest(kind.grid, now[column], scale[column], offset[column])
        return chosen
    each = _each(kind)
    chosen.negative[:] = now < 0
    ratio = (now / np.where(scale > 0, scale, 1)).reshape(-1, each, rows)
    single = np.eye(each, dtype=np.float32)
    for group, negative in enumerate(chosen.negative.reshape(-1, each, rows)):
        chosen.indices[group] = _least(kind.grid, single, negative, np.abs(ratio[group]))
    return chosen


def _nearest(grid: Floats, target: Floats, scale: Floats, offset: Floats) -> npt.NDArray[np.uint16]:
    ratio = (target - offset) / np.where(scale == 0, 1, scale)
    if len(grid) != 16 or grid[1] - grid[0] == 1:
        return np.asarray(np.clip(np.rint(ratio - grid[0]), 0, len(grid) - 1), dtype=np.uint16)
    return np.asarray(np.searchsorted((grid[1:] + grid[:-1]) / 2, ratio), dtype=np.uint16)


def _choose(kind: Layout, target: Floats, scale: Floats, offset: Floats, metric: Doubles, chosen: _Codes, at: int, *, old: Floats | None = None) -> Floats:
    """Nearest values to `target` (1 or 8, rows) in the distance that `metric` (1 or 8, 1 or 8) gives, or `old` ones where nearer; notes their codes."""
    if isinstance(kind, Scalar):
        indices = _nearest(kind.grid, target, scale, offset)
        chosen.indices[at] = indices[0]
        return np.asarray(offset + scale * kind.grid[indices])
    each = _each(kind)
    words, negative = _codewords(kind, target, scale, metric)
    new = np.concatenate([kind.grid[part].T for part in words]) * np.where(negative, -scale, scale)
    here = slice(at // each, (at + 8) // each)
    if old is not None:
        single = metric.astype(np.float32)
        better = _cost(new - target, single) < _cost(old - target, single) * (1 - 1e-6)
        words, negative, new = (np.where(better, a, b) for a, b in ((words, chosen.indices[here]), (negative, chosen.negative[at : at + 8]), (new, old)))
    chosen.indices[here], chosen.negative[at : at + 8] = words, negative
    return np.asarray(new)


def _cost(error: Floats, metric: Floats) -> Floats:
    return np.asarray(((metric @ error) * error).sum(0))


def _codewords(kind: Codebook, target: Floats, scale: Floats, metric: Doubles) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.bool_]]:
    """Codebook entries (1 or 2, rows) and which values are negative (8, rows)."""
    each = _each(kind)
    ratio = target / np.where(scale > 0, scale, 1)
    negative = ratio < 0
    single = (metric / np.diag(metric).mean()).astype(np.float32)
    if kind.even:
        odd = np.flatnonzero(negative.sum(0) % 2)
        negative[(np.square(ratio[:, odd]) * np.diag(single)[:, None]).argmin(0), odd] ^= True
    sign = np.where(negative, -1, 1).astype(np.float32)
    pull = sign * (single @ ratio)
    words = np.zeros((8 // each, target.shape[1]), dtype=np.uint16)
    for part in range(8 // each):
        here = slice(part * each, (part + 1) * each)
        if part == 0 and each < 8:  # the four that follow are taken as if they came out exactly
            goal = pull[here] - sign[here] * (single[here, each:] @ ratio[each:])
        elif part:
            goal = pull[here] - sign[here] * (single[here, :each] @ (sign[:each] * kind.grid[words[0]].T))
        else:
            goal = pull[here]
        words[part] = _least(kind.grid, single[here, here], negative[here], goal)
    return words, negative


def _least(grid: Floats, metric: Floats, negative: npt.NDArray[np.bool_], goal: Floats) -> npt.NDArray[np.uint16]:
    """The entry g of `grid` (entries, each) with the least (s g) metric (s g)ᵀ - 2 g goal, for each column's signs s and `goal` (each, rows).

    The first part depends on the entry and the signs alone, and is the same for opposite signs: it is found once for all rows that share them.
    """
    each = len(metric)
    bits = np.arange(2 ** (each - 1))[:, None] >> np.arange(each) & 1
    signs = np.where(bits, -1, 1).astype(np.float32)
    signed = (signs[:, :, None] * signs[:, None, :] * metric).reshape(-1, each * each)
    squares = signed @ (grid[:, :, None] * grid[:, None, :]).reshape(-1, each * each).T  # (signs, entries)
    shared = np.where(negative[-1], ~negative, negative)  # the last one's sign is taken for plus
    word = (shared << np.arange(each)[:, None]).sum(0)
    found = np.empty(len(word), dtype=np.uint16)
    for first in range(0, len(word), TOGETHER):
        here = slice(first, first + TOGETHER)
        found[here] = (squares[word[here]] - 2 * goal[:, here].T @ grid.T).argmin(1)
    return found
