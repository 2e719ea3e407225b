"""Mixes of types as a planner would choose them, simply made, by which is judged whether enough windows were measured."""

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from builders.sensitivity.table import Mix, Sensitivity, Tensor
from engines import ggml

UNIFORM = (2.5, 3.5, 4.5, 5.5, 6.5)  # bits per weight
GREEDY = (2.75, 3.75, 4.75, 5.75)


def mixes(sensitivity: Sensitivity) -> Iterator[Mix]:
    """Uniform types near UNIFORM bits, and mixes of GREEDY bits on average that spend bytes where they lower the predicted KLD most."""
    for bits in UNIFORM:
        yield {tensor.name: min(sensitivity.allowed(tensor), key=lambda type: abs(bpw(type, tensor) - bits)) for tensor in sensitivity.tensors}
    yield from (greedy(sensitivity, bits) for bits in GREEDY)


def bpw(type: str, tensor: Tensor) -> float:
    """Bits for each value of a tensor in a type."""
    return 8 * ggml.row_bytes(type, tensor.columns) / tensor.columns


def greedy(sensitivity: Sensitivity, bits: float) -> Mix:
    """A mix of at most `bits` bits per weight, or the smallest one: steps up each tensor's convex hull of cost over bytes, steepest first."""
    hulls = [_hull(sensitivity, i) for i in range(len(sensitivity.tensors))]
    steps = sorted(
        ((one[1] - other[1]) / (other[0] - one[0]), i, n + 1, other[0] - one[0])
        for i, hull in enumerate(hulls)
        for n, (one, other) in enumerate(pairwise(hull))
    )
    left = bits / 8 * sum(tensor.parameters for tensor in sensitivity.tensors) - sum(hull[0][0] for hull in hulls)
    at = [0] * len(hulls)
    for _, i, position, size in reversed(steps):
        if size <= left and at[i] == position - 1:
            at[i], left = position, left - size
    return {tensor.name: hulls[i][at[i]][2] for i, tensor in enumerate(sensitivity.tensors)}


def relative_error(sensitivity: Sensitivity) -> float:
    """The largest relative standard error of these mixes' predicted KLD over windows; infinite with a single window."""
    if len(sensitivity.products) < 2:
        return math.inf
    predicted = [sensitivity.predict(mix) for mix in mixes(sensitivity)]
    return max((one.stderr / one.mean for one in predicted if one.mean > 0), default=0.0)


def _hull(sensitivity: Sensitivity, i: int) -> list[tuple[int, float, str]]:
    """(bytes, cost, type) of one tensor's lower convex hull, smallest first."""
    tensor = sensitivity.tensors[i]
    points = sorted((tensor.bytes(type), float(cost), type) for type, cost in zip(sensitivity.types, sensitivity.costs[i], strict=True) if not np.isnan(cost))
    hull: list[tuple[int, float, str]] = []
    for point in points:
        if hull and (point[0] == hull[-1][0] or point[1] >= hull[-1][1]):
            continue
        while len(hull) > 1 and (hull[-2][1] - hull[-1][1]) * (point[0] - hull[-1][0]) <= (hull[-1][1] - point[1]) * (hull[-1][0] - hull[-2][0]):
            hull.pop()
        hull.append(point)
    return hull
