"""Other ways to give every tensor a type within a number of bytes: by weighted error, by measured probes of groups, at random, all the same."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from gguf import GGUFReader

from builders import matrices
from builders.contents import place
from builders.plan.solve import solve
from builders.sensitivity.table import Mix, Sensitivity, Tensor
from config.plans import Rules
from engines.model import Floats

UNIFORM = ("IQ2_XXS", "IQ2_XS", "IQ2_S", "Q2_K", "IQ3_XXS", "IQ3_S", "Q3_K", "IQ4_XS", "Q4_K", "Q5_K", "Q6_K", "Q8_0")
PROBED = ("IQ2_XXS", "IQ2_S", "IQ3_S", "IQ4_XS", "Q5_K", "Q6_K", "Q8_0")
"""The types of which the probes' author would measure a few; between two neighbours of Q4 and Q5 little is left to find."""

_FUSED = {"attn_q": "attn_qkv", "attn_k": "attn_qkv", "attn_v": "attn_qkv", "ffn_gate": "ffn_up", "ffn_gate_exps": "ffn_up_exps"}


def weighted_errors(gguf: Path, importances: Mapping[str, Floats], like: Sensitivity, *, threads: int) -> Sensitivity:
    """The relative weighted error of each tensor in each type, as a table of one sample: no forward or backward pass.

    Of row r the error is Σ_c E[x_c²] e_rc² / Σ_c E[x_c²] w_rc², and a tensor's is the sum over its rows, as in llama.cpp's pull request 15550. Its second
    term needs E[x_c], which the importance matrix of the pinned llama.cpp does not hold, so it is left out (its λ of 0).
    """
    products = np.full((1, len(like.tensors), len(like.types)), np.nan, dtype=np.float32)
    stored = {tensor.name: tensor for tensor in GGUFReader(gguf).tensors}
    for position, tensor in enumerate(like.tensors):
        experts = matrices.values(stored[tensor.name], threads=threads).reshape(tensor.experts, -1, tensor.columns)
        weights = np.broadcast_to(importances.get(tensor.name, np.ones(1, dtype=np.float32)), (tensor.experts, tensor.columns))
        for type in like.allowed(tensor):
            error = sum(_relative(part, weight, type, threads) for part, weight in zip(experts, weights, strict=True))
            products[0, position, like.types.index(type)] = math.sqrt(2 * error)  # so that the table's cost ½ v² is the error
    return Sensitivity(provider="probes", tensors=like.tensors, types=like.types, products=products)


def _relative(values: Floats, weights: Floats, type: str, threads: int) -> float:
    weights = np.ascontiguousarray(weights)
    energy = (values.astype(np.float64) ** 2) @ weights
    error = (matrices.error(values, type, importances=weights, threads=threads).astype(np.float64) ** 2) @ weights
    return float((error / np.maximum(energy, 1e-30)).sum())


def by_error(errors: Sensitivity, capacity: int) -> Mix:
    """The mix of the least summed relative error, by the same integer program as the plan's."""
    return solve(errors, capacity=capacity, rules=Rules())


@dataclass(frozen=True, kw_only=True)
class Group:
    """Tensors that are probed together."""

    name: str
    tensors: tuple[str, ...]


def groups(tensors: Sequence[Tensor]) -> list[Group]:
    """One group for each role in each layer: Q, K and V together, gate and up together; what is outside of the layers is alone."""
    found: dict[str, list[str]] = {}
    for tensor in tensors:
        layer, role = place(tensor.name)
        name = tensor.name if layer is None else f"{layer}.{_FUSED.get(role, role)}"
        found.setdefault(name, []).append(tensor.name)
    return [Group(name=name, tensors=tuple(members)) for name, members in found.items()]


def probe(table: Sensitivity, group: Group, type: str) -> Mix:
    """The mix that stores one group in `type`, and all else in 16 bits."""
    return {tensor.name: type if tensor.name in group.tensors else "BF16" for tensor in table.tensors}


def greedy(table: Sensitivity, divergences: Mapping[tuple[str, str], float], capacity: int) -> Mix:
    """Begins with the smallest probed type everywhere; while bytes are left, raises the tensor that gains most divergence per byte, by any number of types.

    `divergences` holds the measured KLD of each probe by (name of the group, type). A group's gain is shared out by parameters, so that the last
    bytes can go to some of a group's tensors. Raises ValueError when even the smallest types are larger than `capacity`.
    """
    sized = {tensor.name: tensor for tensor in table.tensors}
    cost = {}
    for group in groups(table.tensors):
        parameters = sum(sized[name].parameters for name in group.tensors)
        for name in group.tensors:
            ladder = sorted((type for (found, type) in divergences if found == group.name), key=sized[name].bytes)
            least = math.inf
            for type in ladder:  # noise must not make a larger type look worse
                least = min(least, divergences[group.name, type] * sized[name].parameters / parameters)
                cost[name, type] = least
    ladders = {name: sorted((type for (found, type) in cost if found == name), key=sized[name].bytes) for name in sized}
    mix = {name: ladder[0] for name, ladder in ladders.items()}
    left = capacity - table.bytes(mix)
    if left < 0:
        raise ValueError(f"even the smallest types that were probed need {-left} bytes more than {capacity}")
    while steps := [
        ((cost[name, mix[name]] - cost[name, type]) / more, -more, name, type)
        for name, ladder in ladders.items()
        for type in ladder
        if 0 < (more := sized[name].bytes(type) - sized[name].bytes(mix[name])) <= left
    ]:
        _, less, name, type = max(steps)
        mix[name], left = type, left + less
    return mix


def at_random(table: Sensitivity, capacity: int, seed: int) -> Mix:
    """Types drawn from those between 0.6 and 1.7 times the budget's bits, then moved at random by single steps until the bytes are met.

    Types far from the budget are left out: whoever guesses would not give one tensor a bit and another sixteen.
    """
    rng = np.random.default_rng(seed)
    share = capacity / sum(tensor.parameters for tensor in table.tensors)
    ladders = []
    for tensor in table.tensors:
        ladder = sorted(table.allowed(tensor), key=tensor.bytes)
        near = [type for type in ladder if 0.6 * share <= tensor.bytes(type) / tensor.parameters <= 1.7 * share]
        ladders.append(near or ladder)
    chosen = [int(rng.integers(len(ladder))) for ladder in ladders]

    def size(position: int, step: int = 0) -> int:
        return table.tensors[position].bytes(ladders[position][chosen[position] + step])

    total = sum(map(size, range(len(ladders))))
    while total > capacity and any(chosen):
        position = int(rng.choice(np.flatnonzero(chosen)))
        total += size(position, -1) - size(position)
        chosen[position] -= 1
    while movable := [i for i, ladder in enumerate(ladders) if chosen[i] + 1 < len(ladder) and total + size(i, 1) - size(i) <= capacity]:
        position = int(rng.choice(movable))
        total += size(position, 1) - size(position)
        chosen[position] += 1
    return {tensor.name: ladder[index] for tensor, ladder, index in zip(table.tensors, ladders, chosen, strict=True)}


def uniform(table: Sensitivity, type: str) -> Mix | None:
    """One type for every tensor; None when a tensor cannot have it."""
    return {tensor.name: type for tensor in table.tensors} if all(type in table.allowed(tensor) for tensor in table.tensors) else None


def between(points: Sequence[tuple[int, float]], size: int) -> float | None:
    """KLD at `size` bytes, log-linear between the neighbours among (bytes, KLD) that no smaller file surpasses; None outside of them."""
    front: list[tuple[int, float]] = []
    for point in sorted(points):
        if not front or point[1] < front[-1][1]:
            front.append(point)
    for (low, worse), (high, better) in pairwise(front):
        if low <= size <= high:
            share = (size - low) / (high - low)
            return math.exp((1 - share) * math.log(worse) + share * math.log(better))
    return None
