"""Applies a recipe's gates to what was measured: passed only when every gate's bound holds at 95 % confidence; what is missing or went wrong blocks.

A sample that does not decide a gate may be extended and looked at again. Each look could pass a bad variant by chance, so with n looks planned each is made at
a confidence of 1 - 0.05/n (Bonferroni), the first included: all together err in at most 5 % of cases, however many are needed.

A gate that a person waived does not block. Its result keeps the outcome it has, so that nobody takes a waiver for a pass.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import NormalDist
from types import MappingProxyType

from config.errors import MeasurementError
from config.recipe import Gate
from config.words import GateResult, Measurement, Outcome, Sample, Variant, Verdict, Waiver
from qa import mmlu
from qa.relative import Bound, References, bound, sample_of

ERROR_RATE = 0.05  # one-sided, of all looks at a sample together
SHOWN_DETAILS = 3
NOTHING: References = MappingProxyType({})


def judge(
    variant: Variant,
    gates: Sequence[Gate],
    measurements: Mapping[str, Measurement],
    errors: Mapping[str, str],
    waivers: Sequence[Waiver] = (),
    *,
    samples: Sequence[Sample] = (),
    references: References = NOTHING,
) -> Verdict:
    """The verdict on one variant.

    `errors` says what went wrong, by measurement or by stage. A gate whose measurement has an error of its own, is missing or is not a number comes out as an
    error and blocks, and so does a recipe without any gate for this kind of variant. A waiver among `waivers` covers the gate and outcome that it names.
    `samples` say what the measurements rest on, `references` what relative gates compare with.
    """
    applied = (_apply(gate, measurements.get(gate.measure), errors, samples, references) for gate in gates if gate.applies_to(variant))
    results = tuple(_waived(result, variant, waivers) for result in applied)
    if not results:
        reason = f"The recipe has no gate for variants of kind {variant.kind}, and nothing unmeasured is published."
        return Verdict(tag=variant.tag, outcome=Outcome.ERROR, reasons=(reason,), results=())
    blocking = [result for result in results if result.outcome is not Outcome.PASSED and result.waiver is None]
    outcomes = {result.outcome for result in blocking}
    outcome = next((worst for worst in (Outcome.ERROR, Outcome.FAILED) if worst in outcomes), Outcome.PASSED)
    return Verdict(tag=variant.tag, outcome=outcome, reasons=tuple(dict.fromkeys(_told(result, blocking, errors) for result in blocking)), results=results)


def _told(result: GateResult, blocking: Sequence[GateResult], errors: Mapping[str, str]) -> str:
    """The reason of a gate; those that lack their measurement for one and the same reason are told together."""
    if (message := errors.get(result.measure)) is None:
        return result.reason
    alike = dict.fromkeys(other.measure for other in blocking if errors.get(other.measure) == message)
    return f"{', '.join(alike)} could not be measured: {message}"


def _waived(result: GateResult, variant: Variant, waivers: Sequence[Waiver]) -> GateResult:
    """The result with the waiver that covers it: who accepted a bad figure did not accept that there is none."""
    return replace(result, waiver=next((item for item in waivers if (item.tag, item.gate, item.outcome) == (variant.tag, result.gate, result.outcome)), None))


def _apply(gate: Gate, measured: Measurement | None, errors: Mapping[str, str], samples: Sequence[Sample], references: References) -> GateResult:
    result = GateResult(
        gate=gate.name,
        measure=gate.measure,
        value=None if measured is None else measured.value,
        stderr=None if measured is None else measured.stderr,
        condition=condition(gate),
        outcome=Outcome.ERROR,
        reason="",
        limit=_limit(gate)[0] if gate.relative_to is None else None,
    )
    if measured is not None and gate.measure not in errors and (why := measured.inapplicable) is not None:
        return replace(result, outcome=Outcome.PASSED, reason=f"{gate.measure} does not apply. {why.rstrip('.')}.")
    if measured is None or gate.measure in errors or not math.isfinite(measured.value) or not math.isfinite(measured.stderr or 0.0):
        return replace(result, reason=_unmeasured(gate, measured, errors))
    try:
        against = bound(gate, _limit(gate)[0], measured, samples, references)
    except MeasurementError as error:
        return replace(result, reason=str(error))
    if against is None:
        return replace(
            result, outcome=Outcome.PASSED, reason=f"{_is(gate, measured)}. Nothing of this variant was published before, so it is compared with nothing."
        )
    return _compare(gate, measured, against, result, sample_of(gate.measure, samples) if measured.stderr is not None else None)


def _unmeasured(gate: Gate, measured: Measurement | None, errors: Mapping[str, str]) -> str:
    if message := errors.get(gate.measure) or ("; ".join(errors.values()) if measured is None else ""):
        return f"{gate.measure} could not be measured: {message}"
    if measured is None:
        return f"{gate.measure} was not measured, and the gate {gate.name} asks for it."
    return f"{gate.measure} came out as {measured.value}, which is not a finite number."


def _compare(gate: Gate, measured: Measurement, against: Bound, result: GateResult, sample: Sample | None) -> GateResult:
    """How the gate came out, and why: the whole interval of the error must lie on the right side of the limit. `sample` only when it could be extended."""
    look, looks = (1, 1) if sample is None else (sample.look, sample.looks)
    direction = _limit(gate)[1]
    margin = NormalDist().inv_cdf(1 - ERROR_RATE / looks) * (against.stderr or 0.0)
    excess = direction * (measured.value - against.limit)  # above 0: on the wrong side
    said = f"{_is(gate, measured)}, {_allowed(gate, measured, against)} is allowed"
    result = replace(
        result,
        limit=against.limit,
        against=against.against,
        reference=None if against.reference is None else against.reference.value,
        margin=margin,
        look=look,
        looks=looks,
    )
    if excess + margin <= 0:
        return replace(result, outcome=Outcome.PASSED, reason=f"{said}.")
    if excess - margin > 0:
        return replace(result, outcome=Outcome.FAILED, reason=f"{said}: {_how_far(measured, against.limit, excess)}{_details(measured)}.")
    side = "the right" if excess <= 0 else "the wrong"
    worst = _figure(measured, measured.value + direction * margin)
    unit, more = ("questions", "questions") if gate.measure.partition(".")[0] in mmlu.NAMES else ("tokens", "text")
    extended = f", even after {look} looks, the last at {measured.n} {unit}" if looks > 1 and look == looks else ""
    reason = (
        f"{said}: undecided, the sample is too small{extended}. The value is on {side} side, but at 95 % confidence it may be as "
        f"{'high' if direction > 0 else 'low'} as {worst}. Measure on more {more}{_details(measured)}."
    )
    return replace(result, outcome=Outcome.FAILED, undecided=True, reason=reason)


def _is(gate: Gate, measured: Measurement) -> str:
    error = f" ± {_figure(measured, measured.stderr)}" if measured.stderr is not None else ""
    return f"{gate.measure} is {_figure(measured, measured.value)}{error}{_unit(measured)}"


def _allowed(gate: Gate, measured: Measurement, against: Bound) -> str:
    """The condition with what it comes to: `at most 1.05 × Q4_K_M's 0.02 ± 0.001, 0.021,`."""
    if against.reference is None:
        return condition(gate, measured)
    other = against.reference
    error = f" ± {_figure(measured, other.stderr)}" if other.stderr is not None else ""
    return f"{condition(gate)} ({against.against}: {_figure(measured, other.value)}{error}), that is {_figure(measured, against.limit)},"


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


def condition(gate: Gate, measured: Measurement | None = None) -> str:
    """The bound in words, "at most 0.15"; in the unit of a measurement where there is one."""
    limit, direction = _limit(gate)
    shown = f"{limit:g}" if measured is None else _figure(measured, limit)
    if gate.compare == "ratio":
        shown = f"{limit:g} × {gate.relative_to}"
    elif gate.compare == "difference":
        shown = f"{gate.relative_to} {'-' if limit < 0 else '+'} {abs(limit):g}"
    return f"at {'most' if direction > 0 else 'least'} {shown}"


def _figure(measured: Measurement, value: float | None) -> str:
    """A value as a person reads it: shares in per cent, counts whole, the rest with four significant digits."""
    if value is None:
        return "?"
    if measured.unit == "share":
        return f"{100 * value:.4g} %"
    return f"{value:.0f}" if measured.unit == "count" else f"{value:.4g}"


def _unit(measured: Measurement) -> str:
    return "" if measured.unit in {"share", "count", "ratio", "magnitude"} else f" {measured.unit}"


def _details(measured: Measurement) -> str:
    """The first things counted, in words."""
    if not measured.details or measured.unit != "count":
        return ""
    more = len(measured.details) - SHOWN_DETAILS
    shown = "; ".join(detail.rstrip(".") for detail in measured.details[:SHOWN_DETAILS])
    return f". {shown}{f'; and {more} more' if more > 0 else ''}"
