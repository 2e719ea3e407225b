"""The second step of planning: exchanges of types that use how the errors of tensors add up or cancel, when held-out windows say that they help.

KLD(mix) ≈ ½ mean_s (Σ_i v_{s,i})² from the samples of `builders.sensitivity.table`. With fewer windows than pairs of tensors much of what the products seem
to say about interactions is noise, so the search shrinks them towards the additive form, ½ mean_s [(1 - a) Σ_i v² + a (Σ_i v)²], and is cross-validated:
it is used only if mixes found on some windows are better on the others, by the full form, than the integer program's mix.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from builders.plan.solve import allowed, grouped, padded
from builders.sensitivity.table import Mix, Sensitivity
from config.plans import Rules

FOLDS = 4
SHRINKAGES = (0.25, 0.5, 1.0)  # tried for a
_CANDIDATES = 400  # single changes whose pairs are looked at
_STEPS = 200  # of a search, at most

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Refined:
    """What came of the second step."""

    mix: Mix
    used: bool  # False: the mix is the one that was given
    gain: float  # on held-out windows: share of the predicted KLD that the best shrinkage saves
    stderr: float  # of `gain`, over windows
    shrinkage: float


@dataclass(frozen=True, kw_only=True)
class _Problem:
    """The choices of each group: samples (windows, choices), sums of their squares (choices,) by window, and bytes."""

    sums: list[Floats]  # one (windows, choices) for each group
    squares: list[Floats]
    weights: list[Integers]
    capacity: int


def refine(sensitivity: Sensitivity, mix: Mix, *, capacity: int, rules: Rules) -> Refined:
    """Exchange types in `mix` within the capacity and the rules, if that helps on held-out windows by more than twice its standard error."""
    groups = grouped(sensitivity, rules)
    choices = [allowed(sensitivity, group, rules) for group in groups]
    problem = _problem(sensitivity, groups, choices, capacity)
    start = [types.index(mix[sensitivity.tensors[group[0]].name]) for group, types in zip(groups, choices, strict=True)]
    windows = len(sensitivity.products)
    best = Refined(mix=mix, used=False, gain=-math.inf, stderr=0.0, shrinkage=0.0)
    if windows < 2 * FOLDS:
        return Refined(mix=mix, used=False, gain=0.0, stderr=0.0, shrinkage=0.0)
    before = 0.5 * _total(problem, start) ** 2
    for shrinkage in SHRINKAGES:
        after = np.empty(windows)
        for fold in range(FOLDS):
            held = np.arange(windows) % FOLDS == fold
            after[held] = 0.5 * _total(problem, _search(problem, start, ~held, shrinkage))[held] ** 2
        saved = (before - after) / (before.mean() or 1.0)
        gain, stderr = float(saved.mean()), float(saved.std(ddof=1) / math.sqrt(windows))
        if gain > best.gain:
            best = Refined(mix=mix, used=gain > 2 * stderr, gain=gain, stderr=stderr, shrinkage=shrinkage)
    if not best.used:
        return best
    chosen = _search(problem, start, np.ones(windows, dtype=bool), best.shrinkage)
    found = {sensitivity.tensors[index].name: types[choice] for group, types, choice in zip(groups, choices, chosen, strict=True) for index in group}
    ordered = {tensor.name: found[tensor.name] for tensor in sensitivity.tensors}
    return Refined(mix=ordered, used=True, gain=best.gain, stderr=best.stderr, shrinkage=best.shrinkage)


def _problem(sensitivity: Sensitivity, groups: Sequence[Sequence[int]], choices: Sequence[Sequence[str]], capacity: int) -> _Problem:
    sums, squares, weights = [], [], []
    for group, types in zip(groups, choices, strict=True):
        samples = sensitivity.products[:, list(group)][:, :, [sensitivity.types.index(type) for type in types]].astype(np.float64)
        sums.append(samples.sum(axis=1))
        squares.append((samples**2).sum(axis=1))
        weights.append(np.array([sum(padded(sensitivity.tensors[index], type) for index in group) for type in types], dtype=np.int64))
    return _Problem(sums=sums, squares=squares, weights=weights, capacity=capacity)


def _total(problem: _Problem, chosen: Sequence[int]) -> Floats:
    return np.asarray(sum(part[:, choice] for part, choice in zip(problem.sums, chosen, strict=True)), dtype=np.float64)


def _search(problem: _Problem, start: Sequence[int], windows: npt.NDArray[np.bool_], shrinkage: float) -> list[int]:
    """Take the best single change or exchange of two, on these windows, until none helps."""
    chosen = list(start)
    for _ in range(_STEPS):
        left = problem.capacity - sum(int(part[choice]) for part, choice in zip(problem.weights, chosen, strict=True))
        moves = [(group, choice) for group, part in enumerate(problem.weights) for choice in range(len(part)) if choice != chosen[group]]
        if not moves:
            break
        extra = np.array([problem.weights[group][choice] - problem.weights[group][chosen[group]] for group, choice in moves])
        change = np.stack([(problem.sums[group][:, choice] - problem.sums[group][:, chosen[group]])[windows] for group, choice in moves], axis=1)
        additive = np.array([(problem.squares[group][:, choice] - problem.squares[group][:, chosen[group]])[windows].mean() for group, choice in moves])
        total = _total(problem, chosen)[windows]
        value = (1 - shrinkage) * additive + shrinkage * ((2 * total[:, None] + change) * change).mean(axis=0)
        picked = _best(moves, value, extra, change, left, shrinkage, float((total**2).mean()))
        if not picked:
            break
        for group, choice in picked:
            chosen[group] = choice
    return chosen


def _best(moves: Sequence[tuple[int, int]], value: Floats, extra: Integers, change: Floats, left: int, shrinkage: float, scale: float) -> list[tuple[int, int]]:
    """The change, or the two of different groups, that lower the objective most within the bytes left; none when nothing lowers it noticeably."""
    single = np.where(extra <= left, value, np.inf)
    at = int(np.argmin(single))
    near = np.argsort(value / (np.abs(extra) + 1), kind="stable")[: _CANDIDATES // 2]  # what is gained most for each byte, and lost least
    near = np.union1d(near, np.argsort(value, kind="stable")[: _CANDIDATES // 2])
    owners = np.array([group for group, _ in moves])[near]
    pairs = value[near][:, None] + value[near][None, :] + 2 * shrinkage * (change[:, near].T @ change[:, near]) / len(change)
    pairs[(extra[near][:, None] + extra[near][None, :] > left) | (owners[:, None] == owners[None, :])] = np.inf
    row, column = np.unravel_index(int(np.argmin(pairs)), pairs.shape)
    if min(single[at], pairs[row, column]) >= -1e-6 * scale:
        return []
    return [moves[at]] if single[at] <= pairs[row, column] else [moves[near[row]], moves[near[column]]]
