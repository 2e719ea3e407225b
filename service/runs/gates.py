"""How the gates of a run came out, one by one, and waiving one of them: what `sluice gates` and `sluice waive` do."""

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel

from config.near import hint
from config.words import GateResult, Measurement, Outcome, Waiver
from service.runs import deciding
from service.runs.summary import finite
from service.store import Store, VariantRecord, WaiverRecord, WaiverRefused


class WaiverView(BaseModel):
    """Who set a gate aside, why, and whether the verdict rests on it."""

    by: str
    comment: str
    state: Literal["applied", "pending", "withdrawn"]
    """`pending`: until the run is carried out again, or because the gate came out otherwise than it had when it was waived.
    `withdrawn`: the verdict still rests on it, until the run is carried out again."""


class GateView(BaseModel):
    """One gate applied to one variant."""

    gate: str
    measure: str
    value: float | None
    stderr: float | None
    unit: str | None
    n: int | None
    """Tokens, questions or checks that the value rests on, all that the sample was extended by included."""
    condition: str
    limit: float | None
    """The threshold, in the measurement's unit; null in a verdict that an older version of Sluice wrote."""
    against: str | None
    """What a relative condition compares with, in words."""
    reference: float | None
    """The value there."""
    margin: float | None
    """How far from the limit the value must be to decide; null in an older verdict, or when there was nothing to compare."""
    look: int
    """How often the sample was looked at: each time but the first it had been extended."""
    looks: int
    """How often it could have been; each look is made at a confidence of 1 - 0.05 / looks."""
    undecided: bool
    """Failed because the sample, as large as it may be, leaves it open."""
    outcome: Literal["passed", "failed", "error"]
    reason: str
    waiver: WaiverView | None


class VariantGates(BaseModel):
    """One variant's verdict and the gates that it rests on."""

    tag: str
    verdict: Literal["passed", "failed", "error"] | None
    reasons: list[str]
    gates: list[GateView]


class RunGates(BaseModel):
    """Every gate of a run."""

    run: int
    variants: list[VariantGates]


def gates_of(store: Store, run: int) -> RunGates:
    """Every gate of the run, in the order of the recipe. Raises UnknownRun."""
    store.run(run)
    recorded = {(item.waiver.tag, item.waiver.gate): item for item in store.waivers(run)}
    return RunGates(run=run, variants=[_variant(variant, recorded) for variant in store.variants(run)])


def _variant(record: VariantRecord, recorded: dict[tuple[str, str], WaiverRecord]) -> VariantGates:
    verdict, tag = record.verdict, record.variant.tag
    measured = {item.name: item for item in record.measurements}
    return VariantGates(
        tag=tag,
        verdict=None if verdict is None else verdict.outcome.value,
        reasons=[] if verdict is None else list(verdict.reasons),
        gates=[] if verdict is None else [_gate(result, measured.get(result.measure), recorded.get((tag, result.gate))) for result in verdict.results],
    )


def _gate(result: GateResult, measured: Measurement | None, recorded: WaiverRecord | None) -> GateView:
    waiver = None
    if result.waiver is not None:
        waiver = WaiverView(by=result.waiver.by, comment=result.waiver.comment, state="applied" if recorded else "withdrawn")
    elif recorded is not None:
        waiver = WaiverView(by=recorded.waiver.by, comment=recorded.waiver.comment, state="pending")
    return GateView(
        gate=result.gate,
        measure=result.measure,
        value=finite(result.value),
        stderr=finite(result.stderr),
        unit=None if measured is None else measured.unit,
        n=None if measured is None else measured.n,
        condition=result.condition,
        limit=finite(result.limit),
        against=result.against,
        reference=finite(result.reference),
        margin=finite(result.margin),
        look=result.look,
        looks=result.looks,
        undecided=result.undecided,
        outcome=result.outcome.value,
        reason=result.reason,
        waiver=waiver,
    )


@dataclass(frozen=True, kw_only=True)
class Decision(deciding.Decision):
    """A person's decision on one gate of one variant."""

    gate: str
    tag: str  # of the variant


def waive(store: Store, run: int, decision: Decision, *, unmeasured: bool) -> WaiverRecord:
    """Record that the gate is set aside for the variant of this run, and for nothing else; it counts when the run is carried out again.

    A gate that could not be measured needs `unmeasured` said with it: nobody accepts by mistake what nobody has seen. Raises UnknownRun, WaiverRefused.
    """
    by, comment = decision.said("A waiver", WaiverRefused)
    result = _blocking(store, run, decision.gate, decision.tag)
    if result.outcome is Outcome.ERROR and not unmeasured:
        raise WaiverRefused(
            f"The gate {decision.gate} of {decision.tag} in run {run} was not failed but could not be measured: {result.reason} Repair that and run it again; "
            "or, if the variant is to be published without this measurement, say so with --unmeasured."
        )
    waiver = Waiver(tag=decision.tag, gate=decision.gate, by=by, comment=comment, outcome=result.outcome)
    return store.waive(run, waiver, source=decision.source, details=decision.details)


def withdraw(store: Store, run: int, decision: Decision) -> None:
    """Take a waiver back; it counts when the run is carried out again. Raises UnknownRun, WaiverRefused."""
    by, comment = decision.said("A waiver", WaiverRefused)
    store.run(run)
    store.withdraw_waiver(run, decision.gate, decision.tag, source=decision.source, details={"by": by, "comment": comment, **decision.details})


def _blocking(store: Store, run: int, gate: str, tag: str) -> GateResult:
    """How the gate blocked the variant. Raises UnknownRun, or WaiverRefused when it did not."""
    store.run(run)
    found = {record.variant.tag: record.verdict for record in store.variants(run)}
    verdict = found.get(tag)
    if verdict is None:
        judged = [name for name, item in found.items() if item is not None]
        raise WaiverRefused(
            f"Run {run} has judged no variant {tag!r}.{hint(tag, judged)} Judged are: {', '.join(judged) or 'none'}. "
            "A waiver sets aside what was found, so run it first."
        )
    result = next((item for item in verdict.results if item.gate == gate), None)
    if result is None:
        names = [item.gate for item in verdict.results]
        raise WaiverRefused(f"No gate named {gate!r} was applied to {tag} in run {run}.{hint(gate, names)} Applied were: {', '.join(names) or 'none'}.")
    if result.outcome is Outcome.PASSED:
        raise WaiverRefused(f"The gate {gate} of {tag} in run {run} passed, so there is nothing to waive: {result.reason}")
    return result
