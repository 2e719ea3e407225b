"""Mixes of types as a planner would choose them, simply made, by which is judged whether enough windows were measured."""

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from builders import knapsack
from builders.knapsack import Item
from builders.sensitivity.table import Mix, Sensitivity
from engines.model import Doubles

UNIFORM = (2.5, 3.5, 4.5, 5.5, 6.5)  # bits per weight
GREEDY = (2.75, 3.75, 4.75, 5.75)


def mixes(sensitivity: Sensitivity) -> Iterator[Mix]:
    """Uniform types near UNIFORM bits, and mixes of GREEDY bits on average that spend bytes where they lower the predicted KLD most."""
    for bits in UNIFORM:
        yield {tensor.name: min(sensitivity.allowed(tensor), key=lambda type: abs(tensor.bpw(type) - bits)) for tensor in sensitivity.tensors}
    yield from (greedy(sensitivity, bits) for bits in GREEDY)


def greedy(sensitivity: Sensitivity, bits: float) -> Mix:
    """A mix of at most `bits` bits per weight, or the smallest one: bytes go where they lower the predicted KLD most."""
    choices = [sensitivity.allowed(tensor) for tensor in sensitivity.tensors]
    items = [
        Item(weights=np.array([tensor.bytes(type) for type in types], dtype=np.int64), costs=costs[~np.isnan(costs)])
        for tensor, types, costs in zip(sensitivity.tensors, choices, sensitivity.costs, strict=True)
    ]
    chosen = knapsack.greedy(items, int(bits / 8 * sum(tensor.parameters for tensor in sensitivity.tensors)))
    return {tensor.name: types[choice] for tensor, types, choice in zip(sensitivity.tensors, choices, chosen, strict=True)}


def relative_error(sensitivity: Sensitivity, typical: Callable[[Sensitivity], Iterable[Mix]] = mixes) -> float:
    """The largest relative standard error of typical mixes' predicted KLD over windows; infinite with a single window."""
    if len(sensitivity.products) < 2:
        return math.inf
    predicted = [sensitivity.predict(mix) for mix in typical(sensitivity)]
    return max((one.stderr / one.mean for one in predicted if one.mean > 0), default=0.0)


def spread(energies: Doubles, values: Doubles) -> float:
    """The largest relative standard error, over windows, of what two kinds of mixes are predicted, from the energies (windows, tensors) alone.

    In a uniform mix a tensor's part of the KLD is as its energy; in one that spends its bytes well, as its number of `values` (Cover & Thomas, Elements of
    Information Theory, reverse water-filling: a bit more lowers every part by the same share). Infinite with fewer than two windows.
    """
    if len(energies) < 2:
        return math.inf
    means = energies.mean(axis=0)
    known = means > 0
    mixes = (energies[:, known].sum(axis=1), (energies[:, known] / means[known]) @ values[known])
    return max((float(mix.std(ddof=1) / math.sqrt(len(mix)) / mix.mean()) for mix in mixes if mix.mean() > 0), default=0.0)
