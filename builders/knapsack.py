"""The multiple-choice knapsack, exactly: one choice of each item, at least cost, within a capacity.

The linear relaxation is solved by the items' lower convex hulls (Sinha & Zoltners, "The multiple-choice knapsack problem", Operations Research 27, 1979).
It bounds the optimum from below, taking whole steps down the hulls bounds it from above, and a choice whose reduced cost exceeds the gap between the two
is in no optimal solution. What these leave, usually a few dozen choices, is an integer program for HiGHS.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from config.errors import ConfigurationError

GAP = 1e-5  # of the cost: how far from the optimum a solution may be
_NODES = 2000  # of HiGHS's search tree, at most; a limit in seconds would make the result depend on the machine

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing to choose for: the choices' weights and costs, in any order; of choices that are alike in both the first is meant."""

    weights: Integers
    costs: Floats


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A solution."""

    chosen: tuple[int, ...]  # for each item the index of its choice
    weight: int
    cost: float
    bound: float  # no solution costs less, by the linear relaxation


@dataclass(frozen=True, kw_only=True)
class _Step:
    """One step down an item's convex hull, from a choice to a heavier and cheaper one."""

    item: int
    rung: int  # the step is the rung-th of its item
    weight: int
    gain: float

    @property
    def efficiency(self) -> float:
        return self.gain / self.weight


def lightest(items: Sequence[Item]) -> int:
    """The least weight that any solution has."""
    return sum(int(item.weights.min()) for item in items)


def pack(items: Sequence[Item], capacity: int) -> Packed:
    """The cheapest choice for each item whose weights add up to `capacity` at most. Raises ConfigurationError when even the lightest do not fit.

    Equal input gives equal output, ties included.
    """
    if (least := lightest(items)) > capacity:
        raise ConfigurationError(
            f"The budget leaves {capacity} bytes for the planned tensors, and their smallest allowed types need {least}. Allow more bytes."
        )
    useful = [_undominated(item) for item in items]
    hulls = [_hull(item, kept) for item, kept in zip(items, useful, strict=True)]
    feasible, multiplier = _descend(items, hulls, capacity)
    best = sum(float(item.costs[choice]) for item, choice in zip(items, feasible, strict=True))
    reduced = [item.costs + multiplier * item.weights for item in items]
    bound = sum(float(values[kept].min()) for values, kept in zip(reduced, useful, strict=True)) - multiplier * capacity
    slack = best - bound + 1e-12 * abs(best)
    core = [kept[values[kept] - values[kept].min() <= slack] for values, kept in zip(reduced, useful, strict=True)]
    chosen = feasible if best - bound <= GAP * bound else _integer_program(items, core, capacity, best, GAP * bound) or feasible
    cost = sum(float(item.costs[choice]) for item, choice in zip(items, chosen, strict=True))
    if cost >= best:  # HiGHS stops within the gap, so the greedy solution may be the better one
        chosen, cost = feasible, best
    weight = sum(int(item.weights[choice]) for item, choice in zip(items, chosen, strict=True))
    return Packed(chosen=tuple(chosen), weight=weight, cost=cost, bound=min(bound, cost))


def greedy(items: Sequence[Item], capacity: int) -> list[int]:
    """A good choice for each item within `capacity`, without an integer program: the most efficient steps that fit; the lightest when not even these do."""
    return _descend(items, [_hull(item, _undominated(item)) for item in items], capacity)[0]


def _undominated(item: Item) -> npt.NDArray[np.intp]:
    """Indices of the choices that no other one beats in weight and cost, lightest first."""
    kept: list[int] = []
    for index in np.lexsort((np.arange(len(item.costs)), item.costs, item.weights)):
        if not kept or item.costs[index] < item.costs[kept[-1]]:
            kept.append(int(index))
    return np.array(kept, dtype=np.intp)


def _hull(item: Item, kept: npt.NDArray[np.intp]) -> list[int]:
    """Those of the undominated choices that lie on the lower convex hull of cost over weight."""
    hull: list[int] = []
    for index in kept:
        while len(hull) > 1 and _efficiency(item, hull[-2], hull[-1]) <= _efficiency(item, hull[-1], int(index)):
            hull.pop()
        hull.append(int(index))
    return hull


def _efficiency(item: Item, lighter: int, heavier: int) -> float:
    return float((item.costs[lighter] - item.costs[heavier]) / (item.weights[heavier] - item.weights[lighter]))


def _descend(items: Sequence[Item], hulls: Sequence[Sequence[int]], capacity: int) -> tuple[list[int], float]:
    """Choices by taking the most efficient steps that fit, and the efficiency at which the linear relaxation runs out of capacity."""
    steps = [
        _Step(item=number, rung=rung, weight=int(item.weights[heavier] - item.weights[lighter]), gain=float(item.costs[lighter] - item.costs[heavier]))
        for number, (item, hull) in enumerate(zip(items, hulls, strict=True))
        for rung, (lighter, heavier) in enumerate(itertools.pairwise(hull))
    ]
    steps.sort(key=lambda step: (-step.efficiency, step.item, step.rung))
    position = [0] * len(items)
    left, multiplier = capacity - lightest(items), None
    for step in steps:
        if step.weight <= left and position[step.item] == step.rung:
            position[step.item] += 1
            left -= step.weight
        elif multiplier is None:
            multiplier = step.efficiency
    return [hull[at] for hull, at in zip(hulls, position, strict=True)], multiplier or 0.0


def _integer_program(items: Sequence[Item], core: Sequence[npt.NDArray[np.intp]], capacity: int, best: float, tolerance: float) -> list[int] | None:
    """HiGHS over the choices in `core`, to within `tolerance` of the optimum's cost, of which `best` is known; None when it finds nothing."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    open_items = [number for number, kept in enumerate(core) if len(kept) > 1]
    chosen = [int(kept[0]) for kept in core]
    if not open_items:
        return chosen
    weights = [items[number].weights[core[number]] for number in open_items]
    costs = [items[number].costs[core[number]] for number in open_items]
    fixed = sum(int(items[number].weights[choice]) for number, choice in enumerate(chosen)) - sum(int(part[0]) for part in weights)
    least = fixed + sum(int(part.min()) for part in weights)
    extra = np.concatenate([part - part.min() for part in weights])
    loss = np.concatenate([part - part.min() for part in costs])
    owners = np.repeat(np.arange(len(open_items)), [len(part) for part in costs])
    single = csr_array((np.ones(len(owners)), (owners, np.arange(len(owners)))))
    room, scale = capacity - least, float(extra.max() or 1)
    ends = np.cumsum([len(part) for part in costs])[:-1]
    above = best - sum(float(item.costs[kept].min()) for item, kept in zip(items, core, strict=True))  # what HiGHS sees as the objective
    for _ in range(3):
        found = milp(
            loss / float(loss.max() or 1.0),
            integrality=np.ones(len(owners)),
            bounds=Bounds(0, 1),
            constraints=[LinearConstraint(single, 1, 1), LinearConstraint(csr_array(extra[None, :] / scale), -np.inf, room / scale)],
            options={"mip_rel_gap": tolerance / max(tolerance, above), "node_limit": _NODES},
        )
        if found.x is None:
            return None
        places = [int(np.argmax(part)) for part in np.split(found.x, ends)]
        excess = least + sum(int(part[place] - part.min()) for part, place in zip(weights, places, strict=True)) - capacity
        if excess <= 0:
            for number, place in zip(open_items, places, strict=True):
                chosen[number] = int(core[number][place])
            return chosen
        room -= excess  # HiGHS takes 1e-6 for nothing, which is many bytes of a large file
    return None
