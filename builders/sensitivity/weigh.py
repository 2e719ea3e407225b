"""Weighs quantization errors by gradients that were summed up over calibration text: for every tensor and type the mean over windows of Σ g² δ² / T.

Errors are those of the rows whose gradients were kept (see `rows`), made for one tensor and type at a time; the sums stand for all rows.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from gguf import ReaderTensor

from builders import matrices
from builders.sensitivity.fisher import Products
from builders.sensitivity.gather import Part
from builders.sensitivity.rows import Rows
from builders.sensitivity.table import TYPES, Tensor
from engines import ggml
from engines.model import Doubles, Floats

_VALUES = 2**20  # values of a tensor that one thread quantizes at a time


def possible(tensor: Tensor, importances: Mapping[str, Floats]) -> list[int]:
    """The types that a tensor can have, as places in TYPES."""
    known = tensor.name in importances
    return [i for i, type in enumerate(TYPES) if ggml.fits(type, tensor.columns) and (known or not ggml.needs_importances(type))]


def means(about: Tensor, parts: Sequence[Part], stored: ReaderTensor, importances: Mapping[str, Floats], *, windows: int, threads: int) -> Doubles:
    """Mean Σ g² δ² / T over so many windows (TYPES,) of a tensor; NaN in types that it cannot have.

    BF16 is taken as exact, as it is in a BF16 GGUF; of F16 and F32 its error does a fortieth of Q8_0's.
    """
    found = np.full(len(TYPES), np.nan)
    types = possible(about, importances)
    found[types] = 0.0
    data, own = matrices.data(stored), importances.get(about.name)
    each = None if own is None else np.broadcast_to(own, (about.experts, about.columns))

    def weighed(type: int, expert: int, targets: Rows, squares: Floats) -> tuple[int, float]:
        values = ggml.dequantize(data[targets], stored.tensor_type.name, about.columns)
        error = matrices.error(values, TYPES[type], importances=None if each is None else each[expert])
        return type, float(np.vdot(np.square(error, out=error), squares))

    pieces = [(expert, part.targets[places], part.squares[places].cpu().numpy()) for part in parts for expert, places in _pieces(about, part.targets)]
    with ThreadPoolExecutor(threads) as pool:
        work = [pool.submit(weighed, type, *piece) for type in reversed(types) if TYPES[type] != "BF16" for piece in pieces]
        for done in work:
            type, sum_ = done.result()
            found[type] += sum_ / windows
    return found


def _pieces(about: Tensor, targets: Rows) -> list[tuple[int, Rows]]:
    """Experts and places of their rows in `targets`, in pieces of about _VALUES values, so that what quantizing one takes is little."""
    of = targets // (about.rows // about.experts)
    step = max(1, _VALUES // about.columns)
    found = []
    for expert in np.unique(of):
        places = np.flatnonzero(of == expert)
        found += [(int(expert), places[first : first + step]) for first in range(0, len(places), step)]
    return found


def products(means: Doubles, energies: npt.NDArray[np.floating]) -> Products:
    """Samples (windows, tensors, TYPES) of which the means (tensors, TYPES) are the squares' means; windows differ as their energies (windows, tensors) do.

    Within a tensor δ² is nearly proportional to w², so what a window has of Σ ‖g‖² ‖w‖² is about what it has of Σ g² δ² in every type.
    """
    mean = energies.mean(axis=0)
    shares = np.divide(energies, mean, out=np.ones_like(energies), where=mean > 0)
    return np.asarray(np.sqrt(shares[:, :, None] * means), dtype=np.float32)
