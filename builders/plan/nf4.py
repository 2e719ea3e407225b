"""Dynamic NF4: which linear layers stay in 16 bits within a byte budget, by the same program with two choices for each.

The table is a `Sensitivity` of `builders.sensitivity.nf4`: modules as transformers names them ("model.layers.0.mlp.down_proj"), in NF4 or BF16. Layers that
vLLM runs as one have one choice together, for it can load them in one form only.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from builders import knapsack
from builders.sensitivity.nf4 import TYPES
from builders.sensitivity.table import Sensitivity
from builders.weights import parameters, weight_files
from config.errors import ConfigurationError
from config.files import explain
from config.plans import Nf4Budget
from engines import nf4

VERSION = 1  # raise when outputs change


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What stays in 16 bits."""

    kept: list[str]  # modules, in the table's order: what `builders.bnb.quantize` takes as `skip`
    bytes: int  # of all modules of the table


def plan(out: Path, *, sensitivity: Path, model: Path, plain: Path, budget: dict[str, Any], threads: int) -> dict[str, Any]:
    """Choose the modules to keep; `plain` is the folder of the plain NF4 variant, from which every size is reckoned, `model` the 16-bit one.

    Writes no file. Returns `kept` (modules), `bytes` (of the safetensors files, at most), `bpw`, `predicted` (KLD in nats per token: `mean`, `stderr`), and
    `stock`: the same of the plain variant. Raises ConfigurationError when the budget is below the plain variant's bytes, keeps nothing, or keeps everything.
    """
    del out, threads
    table = Sensitivity.load(sensitivity)
    try:
        wanted = Nf4Budget.model_validate(budget)
    except ValidationError as error:
        raise ConfigurationError(f"The budget of the plan is wrong: {explain(error)}.") from error
    size, count = sum(file.stat().st_size for file in weight_files(plain)), parameters(weight_files(model))
    rest = size - sum(nf4.stored_bytes(tensor.parameters) for tensor in table.tensors)
    most = allowed_bytes(wanted, plain=size, parameters=count)
    if most < size:
        raise ConfigurationError(f"The budget of {most} bytes is below the {size} of plain NF4, which has nothing in 16 bits that could be in 4. Raise it.")
    chosen = choose(table, capacity=most - rest)
    if not chosen.kept:
        least = min(sum(_step(table, place) for place in group) for group in grouped(table))
        raise ConfigurationError(
            f"The budget of {most} bytes keeps no layer in 16 bits: plain NF4 has {size}, and the smallest step takes {least} more. "
            "Raise it, or publish plain NF4 alone."
        )
    if len(chosen.kept) == len(table.tensors):
        raise ConfigurationError(f"The budget of {most} bytes leaves nothing in 4 bits. Lower it, or publish the 16-bit model alone.")
    kept = set(chosen.kept)
    return {
        "kept": chosen.kept,
        "bytes": rest + chosen.bytes,
        "bpw": 8 * (rest + chosen.bytes) / count,
        "predicted": asdict(table.predict({tensor.name: TYPES[tensor.name in kept] for tensor in table.tensors})),
        "stock": asdict(table.predict(dict.fromkeys((tensor.name for tensor in table.tensors), "NF4"))),
    }


def allowed_bytes(budget: Nf4Budget, *, plain: int, parameters: int) -> int:
    """The bytes that the files may have, by those of plain NF4 and the model's number of values."""
    if budget.bytes is not None:
        return budget.bytes
    if budget.bpw is not None:
        return int(budget.bpw * parameters / 8)
    return int(plain * (1 + (budget.above or 0.0)))


def choose(table: Sensitivity, *, capacity: int) -> Choice:
    """The modules to keep for the least predicted KLD, such that all modules of the table take at most `capacity` bytes.

    Raises ConfigurationError when the table is of other types, or when not even NF4 throughout fits.
    """
    if table.types != TYPES:
        raise ConfigurationError(f"A plan of NF4 needs sensitivities of the types {', '.join(TYPES)}; given are {', '.join(table.types)}.")
    groups = grouped(table)
    packed = knapsack.pack([_item(table, group) for group in groups], capacity)
    kept = {place for group, choice in zip(groups, packed.chosen, strict=True) for place in group if TYPES[choice] == "BF16"}
    return Choice(kept=[tensor.name for place, tensor in enumerate(table.tensors) if place in kept], bytes=packed.weight)


def grouped(table: Sensitivity) -> list[list[int]]:
    """The modules' places in the table, those together that vLLM fuses."""
    groups: dict[str, list[int]] = {}
    for place, tensor in enumerate(table.tensors):
        groups.setdefault(nf4.fused(tensor.name), []).append(place)
    return list(groups.values())


def _item(table: Sensitivity, group: Sequence[int]) -> knapsack.Item:
    small = sum(nf4.stored_bytes(table.tensors[place].parameters) for place in group)
    weights = np.array([small, small + sum(_step(table, place) for place in group)], dtype=np.int64)
    return knapsack.Item(weights=weights, costs=table.costs[list(group)].sum(axis=0))


def _step(table: Sensitivity, place: int) -> int:
    """Bytes that a module takes more in 16 bits."""
    values = table.tensors[place].parameters
    return 2 * values - nf4.stored_bytes(values)
