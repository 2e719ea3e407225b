"""Which rows of a tensor are quantized to learn its errors: those with the largest gradients, and some of the others, which stand for them.

Within one tensor and type δ² is nearly proportional to w², so the sum over the others is the sum over their sample times Σ x / Σ x of the sample, with x the
row's g² · w² (a ratio estimator; Cochran, Sampling Techniques, chapter 6). Few rows have much of the gradient, and the same ones in every window: a pass over
one of them tells which. All types of a tensor share the sample, and so what little error there is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from builders.sensitivity.table import Tensor
from engines.model import Floats

Rows = npt.NDArray[np.int64]

ROWS = 256  # of a tensor, where it has more: half of them those with the largest gradients
LEAST = 8  # of an expert
FREQUENT = 4096  # of a vocabulary: those of the text's most frequent tokens, which a single window does not have, beside ROWS
VOCABULARY = ("token_embd.weight", "output.weight")  # whose rows are tokens

_SEED = 2


@dataclass(frozen=True, kw_only=True)
class Stratum:
    """Rows that one sample stands for, as places in a segment."""

    rows: Rows  # ascending
    sample: Rows  # some of them, or all; ascending

    @property
    def whole(self) -> bool:
        """Whether every row is in the sample."""
        return len(self.sample) == len(self.rows)


def most(tensor: Tensor) -> int:
    """How many rows of a tensor are quantized at most."""
    return min(tensor.rows, max(ROWS, LEAST * tensor.experts) + (FREQUENT if tensor.name in VOCABULARY else 0))


def strata(tensor: Tensor, targets: Rows, energies: Floats, frequent: Sequence[int] = ()) -> list[Stratum]:
    """The samples of a segment, whose rows are the tensor's `targets`.

    `energies` are g² · w² of each row in one window, `frequent` tokens the most frequent first.
    """
    places = np.arange(len(targets))
    if most(tensor) == tensor.rows:
        return [Stratum(rows=places, sample=places)]
    wanted = -(-max(ROWS, LEAST * tensor.experts) * len(targets) // tensor.rows)
    known = np.zeros(len(targets), dtype=bool)
    known[np.argsort(-energies, kind="stable")[: wanted // 2]] = True
    if tensor.name in VOCABULARY:
        known |= np.isin(targets, np.asarray(frequent, dtype=np.int64)[:FREQUENT])
    heavy, others = places[known], places[~known]
    sample = others[_spread(len(others), min(len(others), wanted - wanted // 2))]
    return [Stratum(rows=rows, sample=chosen) for rows, chosen in ((heavy, heavy), (others, sample)) if len(rows)]


def _spread(count: int, wanted: int) -> Rows:
    """So many of the numbers below `count`, one at random from each of as many equal stretches: heads and experts all have theirs, at no fixed distance."""
    edges = np.linspace(0, count, wanted + 1)
    found = edges[:-1] + np.random.default_rng([_SEED, count]).random(wanted) * np.diff(edges)
    return np.minimum(found.astype(np.int64), count - 1)
