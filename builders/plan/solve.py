"""The best mix of types within a budget: sensitivities and rules made into a knapsack of one choice of type for each group of tensors."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from builders import knapsack
from builders.ggufs import padded
from builders.sensitivity.table import Mix, Sensitivity
from config.errors import ConfigurationError
from config.plans import Equal, Rules

_EQUAL: Mapping[Equal, re.Pattern[str]] = {
    "gate_up": re.compile(r"^(?P<layer>blk\.\d+)\.ffn_(?:gate|up)(?P<part>_exps|_shexp|_chexps)?\.weight$"),
    "qkv": re.compile(r"^(?P<layer>blk\.\d+)\.attn_[qkv](?P<part>)\.weight$"),
}


@dataclass(frozen=True, kw_only=True)
class Solution:
    """A mix and how good it is."""

    mix: Mix
    bytes: int  # of the planned tensors, padded
    cost: float  # predicted KLD, as far as the rules let it count
    bound: float  # no mix within the budget is predicted to have less


def solve(sensitivity: Sensitivity, *, capacity: int, rules: Rules) -> Mix:
    """The mix of least predicted KLD whose tensors, each padded to 32 bytes, take at most `capacity` bytes. Raises ConfigurationError when there is none."""
    return solution(sensitivity, capacity=capacity, rules=rules).mix


def solution(sensitivity: Sensitivity, *, capacity: int, rules: Rules) -> Solution:
    """As `solve`, with the bound that shows how far from the optimum the mix can be at most."""
    groups = grouped(sensitivity, rules)
    choices = [allowed(sensitivity, group, rules) for group in groups]
    costs = sensitivity.costs if rules.activations else sensitivity.weights
    items = [_item(sensitivity, costs, group, types) for group, types in zip(groups, choices, strict=True)]
    packed = knapsack.pack(items, capacity)
    mix = {sensitivity.tensors[index].name: types[choice] for group, types, choice in zip(groups, choices, packed.chosen, strict=True) for index in group}
    return Solution(mix={tensor.name: mix[tensor.name] for tensor in sensitivity.tensors}, bytes=packed.weight, cost=packed.cost, bound=packed.bound)


def bits(type: str) -> float:
    """Bits per weight."""
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[type]]
    return 8 * size / block


def grouped(sensitivity: Sensitivity, rules: Rules) -> list[list[int]]:
    """The tensors' indices, those that must share a type together, in the order of the table."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for index, tensor in enumerate(sensitivity.tensors):
        match = next(((kind, found) for kind in rules.equal if (found := _EQUAL[kind].match(tensor.name))), None)
        key = (match[0], match[1]["layer"], match[1]["part"] or "") if match else ("", tensor.name)
        groups.setdefault(key, []).append(index)
    return list(groups.values())


def allowed(sensitivity: Sensitivity, group: Sequence[int], rules: Rules) -> tuple[str, ...]:
    """The types that every tensor of a group may have. Raises ConfigurationError when the rules leave none."""
    names = [sensitivity.tensors[index].name for index in group]
    fitting = [type for column, type in enumerate(sensitivity.types) if not any(math.isnan(sensitivity.costs[index, column]) for index in group)]
    permitted: tuple[str, ...] = rules.types
    types = [type for type in fitting if type in permitted] or [type for type in fitting if type == "BF16"]
    floor = max((bits(type) for pattern, type in rules.floors.items() if any(re.search(pattern, name) for name in names)), default=0.0)
    ceiling = min((bits(type) for pattern, type in rules.ceilings.items() if any(re.search(pattern, name) for name in names)), default=math.inf)
    kept = tuple(type for type in types if floor <= bits(type) <= ceiling)
    if not kept:
        raise ConfigurationError(
            f"The rules leave no type for {' and '.join(names)}: of {', '.join(fitting) or 'no types'}, {', '.join(types) or 'none'} are allowed, "
            f"at least {floor:g} and at most {ceiling:g} bits per weight. Relax the profile, `types`, `floors` or `ceilings`."
        )
    return kept


def unmatched(sensitivity: Sensitivity, rules: Rules) -> list[str]:
    """Patterns of the rules that no tensor's name holds: meant for another architecture, or mistyped."""
    return sorted({pattern for pattern in (*rules.floors, *rules.ceilings) if not any(re.search(pattern, tensor.name) for tensor in sensitivity.tensors)})


def _item(sensitivity: Sensitivity, costs: npt.NDArray[np.float64], group: Sequence[int], types: Sequence[str]) -> knapsack.Item:
    columns = [sensitivity.types.index(type) for type in types]
    weights = [sum(padded(sensitivity.tensors[index].bytes(type)) for index in group) for type in types]
    return knapsack.Item(weights=np.array(weights, dtype=np.int64), costs=costs[np.ix_(list(group), columns)].sum(axis=0))
