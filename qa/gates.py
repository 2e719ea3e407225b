"""Applies a recipe's gates to what was measured: passed only when every gate's bound holds at 95 % confidence; what is missing or went wrong blocks.

A gate that a person waived does not block. Its result keeps the outcome it has, so that nobody takes a waiver for a pass.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from config.recipe import Gate
from config.words import GateResult, Measurement, Outcome, Variant, Verdict, Waiver

ONE_SIDED_95 = 1.645  # standard errors
SHOWN_DETAILS = 3


def judge(
    variant: Variant, gates: Sequence[Gate], measurements: Mapping[str, Measurement], errors: Mapping[str, str], waivers: Sequence[Waiver] = ()
) -> Verdict:
    """The verdict on one variant.

    `errors` says what went wrong, by measurement or by stage. A gate whose measurement has an error of its own, is missing or is not a number comes out as an
    error and blocks, and so does a recipe without any gate for this kind of variant. A waiver among `waivers` covers the gate and outcome that it names.
    """
    results = tuple(_waived(_apply(gate, measurements.get(gate.measure), errors), variant, waivers) for gate in gates if variant.kind in gate.kinds)
    if not results:
        reason = f"The recipe has no gate for variants of kind {variant.kind}, and nothing unmeasured is published."
        return Verdict(tag=variant.tag, outcome=Outcome.ERROR, reasons=(reason,), results=())
    blocking = [result for result in results if result.outcome is not Outcome.PASSED and result.waiver is None]
    outcomes = {result.outcome for result in blocking}
    outcome = next((worst for worst in (Outcome.ERROR, Outcome.FAILED) if worst in outcomes), Outcome.PASSED)
    return Verdict(tag=variant.tag, outcome=outcome, reasons=tuple(result.reason for result in blocking), results=results)


def _waived(result: GateResult, variant: Variant, waivers: Sequence[Waiver]) -> GateResult:
    """The result with the waiver that covers it: who accepted a bad figure did not accept that there is none."""
    return replace(result, waiver=next((item for item in waivers if (item.tag, item.gate, item.outcome) == (variant.tag, result.gate, result.outcome)), None))


def _apply(gate: Gate, measured: Measurement | None, errors: Mapping[str, str]) -> GateResult:
    if measured is None or gate.measure in errors or not math.isfinite(measured.value) or not math.isfinite(measured.stderr or 0.0):
        outcome, reason = Outcome.ERROR, _unmeasured(gate, measured, errors)
    else:
        outcome, reason = _compare(gate, measured)
    return GateResult(
        gate=gate.name,
        measure=gate.measure,
        value=None if measured is None else measured.value,
        stderr=None if measured is None else measured.stderr,
        condition=_condition(gate),
        outcome=outcome,
        reason=reason,
        limit=_limit(gate)[0],
    )


def _unmeasured(gate: Gate, measured: Measurement | None, errors: Mapping[str, str]) -> str:
    if message := errors.get(gate.measure) or ("; ".join(errors.values()) if measured is None else ""):
        return f"{gate.measure} could not be measured: {message}"
    if measured is None:
        return f"{gate.measure} was not measured, and the gate {gate.name} asks for it."
    return f"{gate.measure} came out as {measured.value}, which is not a finite number."


def _compare(gate: Gate, measured: Measurement) -> tuple[Outcome, str]:
    """How the gate came out, and why: the whole interval of the error must lie on the right side of the limit."""
    limit, direction = _limit(gate)
    margin = ONE_SIDED_95 * (measured.stderr or 0.0)
    excess = direction * (measured.value - limit)  # above 0: on the wrong side
    shown, unit = _figure(measured, measured.value), _unit(measured)
    error = f" ± {_figure(measured, measured.stderr)}" if measured.stderr is not None else ""
    said = f"{gate.measure} is {shown}{error}{unit}, {_condition(gate, measured)} is allowed"
    if excess + margin <= 0:
        return Outcome.PASSED, f"{said}."
    if excess - margin > 0:
        return Outcome.FAILED, f"{said}: {_how_far(measured, limit, excess)}{_details(measured)}."
    side = "the right" if excess <= 0 else "the wrong"
    bound = _figure(measured, measured.value + direction * margin)
    return Outcome.FAILED, (
        f"{said}: undecided, the sample is too small. The value is on {side} side, but at 95 % confidence it may be as "
        f"{'high' if direction > 0 else 'low'} as {bound}. Measure on more {'questions' if gate.measure.startswith('mmlu') else 'text'}{_details(measured)}."
    )


def _limit(gate: Gate) -> tuple[float, int]:
    """The limit, and 1 when values above it fail or -1 when values below it do."""
    if gate.at_most is not None:
        return gate.at_most, 1
    if gate.at_least is not None:
        return gate.at_least, -1
    raise ValueError(f"gate {gate.name} has no limit")  # a recipe cannot say so


def _how_far(measured: Measurement, limit: float, excess: float) -> str:
    """By how much the limit is missed: as a factor where that says more, else as a difference."""
    if measured.unit == "count":
        return f"{_figure(measured, excess)} too many" if measured.value > limit else f"{_figure(measured, excess)} too few"
    if limit > 0 and measured.value > 1.5 * limit:
        return f"{measured.value / limit:.1f} times the limit"
    return f"{_figure(measured, excess)}{_unit(measured)} beyond the limit"


def _condition(gate: Gate, measured: Measurement | None = None) -> str:
    limit, direction = _limit(gate)
    return f"at {'most' if direction > 0 else 'least'} {f'{limit:g}' if measured is None else _figure(measured, limit)}"


def _figure(measured: Measurement, value: float | None) -> str:
    """A value as a person reads it: shares in per cent, counts whole, the rest with four significant digits."""
    if value is None:
        return "?"
    if measured.unit == "share":
        return f"{100 * value:.4g} %"
    return f"{value:.0f}" if measured.unit == "count" else f"{value:.4g}"


def _unit(measured: Measurement) -> str:
    return "" if measured.unit in {"share", "count", "ratio"} else f" {measured.unit}"


def _details(measured: Measurement) -> str:
    """The first things counted, in words."""
    if not measured.details or measured.unit != "count":
        return ""
    more = len(measured.details) - SHOWN_DETAILS
    shown = "; ".join(detail.rstrip(".") for detail in measured.details[:SHOWN_DETAILS])
    return f". {shown}{f'; and {more} more' if more > 0 else ''}"
