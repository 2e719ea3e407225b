"""The stage that plans: from a table of sensitivities and a budget to the type of every tensor."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from builders.ggufs import padded
from builders.plan.capacity import Capacity, capacity
from builders.plan.solve import solution, unmatched
from builders.sensitivity.table import Mix, Sensitivity
from config.errors import ConfigurationError
from config.files import explain
from config.plans import Budget, Profile, Rules

VERSION = 3  # raise when outputs change


def plan(
    out: Path,
    *,
    sensitivity: Path,
    gguf: Path,
    imatrix: Path,
    budget: dict[str, Any],
    profile: Profile = "any",
    rules: dict[str, Any] | None = None,
    threads: int,
) -> dict[str, Any]:
    """Write `mix.json`: the type of every tensor that llama-quantize converts; those without sensitivities get what it would give them.

    `sensitivity` is the folder of `Sensitivity.save`. Returns `mix` (the file), `bytes` (of the whole GGUF, to within what is said about the imatrix), `bpw`,
    `predicted` (KLD in nats per token: `mean`, `stderr`), `activations` (what their rounding has in it), `bound` (the least that any mix could be predicted to
    have, without activations where the rules leave these out), `shares` (of the KLD, by tensor),
    `by_type` (bytes), `unmatched` (patterns of the rules without a tensor), `provider` and `systematic` of the sensitivities, and for a budget like a stock mix
    `stock`: that mix's own prediction.
    Raises ConfigurationError when rules or budget are impossible.
    """
    del threads  # one is enough, and the result must not depend on them
    table = Sensitivity.load(sensitivity)
    try:
        wanted, keep = Budget.model_validate(budget), Rules.model_validate(rules or {}).within(profile)
    except ValidationError as error:
        raise ConfigurationError(f"The budget or the rules of the plan are wrong: {explain(error)}.") from error
    except ValueError as error:
        raise ConfigurationError(f"The rules of the plan contradict each other: {error}.") from error
    room = capacity(wanted, gguf=gguf, imatrix=imatrix, planned={tensor.name for tensor in table.tensors})
    found = solution(table, capacity=room.planned, rules=keep)
    whole = {**room.rest, **found.mix}
    (out / "mix.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    return {
        "mix": "mix.json",
        "bytes": room.overhead + found.bytes,
        "bpw": room.bpw(table.bytes(found.mix)),
        "predicted": asdict(table.predict(found.mix)),
        "activations": table.rounding(found.mix),
        "bound": found.bound,
        "shares": table.shares(found.mix),
        "by_type": _by_type(table, found.mix),
        "unmatched": unmatched(table, keep),
        "provider": table.provider,
        "systematic": table.systematic,
        "stock": _stock(table, room),
    }


def _by_type(table: Sensitivity, mix: Mix) -> dict[str, int]:
    counted: Counter[str] = Counter()
    for tensor in table.tensors:
        counted[mix[tensor.name]] += padded(tensor.bytes(mix[tensor.name]))
    return dict(counted.most_common())


def _stock(table: Sensitivity, room: Capacity) -> dict[str, Any] | None:
    """What the table says about the stock mix; None when there is none, or when it holds a type that the table lacks."""
    if room.stock is None:
        return None
    mix = {tensor.name: room.stock[tensor.name] for tensor in table.tensors}
    if any(mix[tensor.name] not in table.allowed(tensor) for tensor in table.tensors):
        return None
    return {"mean": (estimate := table.predict(mix)).mean, "stderr": estimate.stderr}
