"""What a gate's bound comes to when it is relative to another variant or to what is published, and the error of the comparison.

A value v is held against c·r (a ratio) or r + c (a difference), r being the other's value. The error is that of v - c·r, respectively v - r: where both were
measured on the same windows or questions it comes from the differences one by one, so that what is hard for both does not count as error; else both errors are
taken as independent and added in quadrature. Where one sample was extended further, each value is that of its own whole sample. Asking whether v - c·r is below
0 instead of whether v/r is below c is exact also where r is nearly 0 (Fieller).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from config.errors import MeasurementError
from config.recipe import Gate
from config.words import Measurement, Sample
from engines.model import Doubles
from qa import mmlu
from qa.divergence import spread


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What a gate's bound can be relative to."""

    name: str  # in words: "Q4_K_M", "what run 7 published"
    measurements: Mapping[str, Measurement]
    samples: Sequence[Sample] = ()
    error: str = ""  # why it could not be measured, when it could not


References = Mapping[str, Reference | None]
"""By what a gate calls it: a tag, `stock` or `published`. None: there is none, which is no fault."""


@dataclass(frozen=True, kw_only=True)
class Bound:
    """A limit, and the standard error of how far the value is from it."""

    limit: float
    stderr: float | None
    reference: Measurement | None = None
    against: str | None = None  # whose measurement that is, in words


def sample_of(measure: str, samples: Sequence[Sample]) -> Sample | None:
    """The sample that the measurement of that name rests on."""
    return next((sample for sample in samples if measure.partition(".")[0] in sample.basis), None)


def bound(gate: Gate, limit: float, measured: Measurement, samples: Sequence[Sample], references: References) -> Bound | None:
    """The bound on `measured`; `limit` is the gate's number. None when nothing was published yet.

    Raises MeasurementError when there is nothing to compare with but should be, or when the two cannot be compared.
    """
    if gate.relative_to is None:
        return Bound(limit=limit, stderr=measured.stderr)
    if gate.relative_to not in references:
        raise MeasurementError(f"{gate.relative_to}, which the gate {gate.name} compares with, was not measured in this run.")
    other = references[gate.relative_to]
    if other is None:
        return None
    sample, theirs = (sample_of(gate.measure, found) for found in (samples, other.samples))
    reference = _comparable(gate, sample, other, theirs)
    factor = limit if gate.compare == "ratio" else 1.0
    return Bound(
        limit=factor * reference.value if gate.compare == "ratio" else reference.value + limit,
        stderr=_error(measured, sample, reference, theirs, factor),
        reference=reference,
        against=other.name,
    )


def _comparable(gate: Gate, sample: Sample | None, other: Reference, basis: Sample | None) -> Measurement:
    """The other's measurement. Raises MeasurementError unless it is there, a number, and measured on the same."""
    reference = other.measurements.get(gate.measure)
    if reference is None or not math.isfinite(reference.value) or not math.isfinite(reference.stderr or 0.0):
        raise MeasurementError(f"{other.name}, which the gate {gate.name} compares with, has no {gate.measure}{f': {other.error}' if other.error else '.'}")
    if gate.compare == "ratio" and reference.value < 0:
        raise MeasurementError(f"{gate.measure} of {other.name} is {reference.value:.4g}; a ratio to what is below 0 says nothing. Use `compare: difference`.")
    family = gate.measure.partition(".")[0]
    ours, theirs = (None if item is None else item.basis[family] for item in (sample, basis))
    if ours != theirs:
        raise MeasurementError(
            f"{gate.measure} of {other.name} was measured on another text, context, or other questions, so it cannot be compared with. Measure as it was "
            "measured; or look at both figures, and if the variant is good, waive this gate once with --unmeasured: the next release is compared with this one."
        )
    return reference


def _error(measured: Measurement, sample: Sample | None, reference: Measurement, other: Sample | None, factor: float) -> float | None:
    """Standard error of v - factor·r."""
    together = None if sample is None or other is None else _paired(measured.name, sample, other, factor)
    if together is not None:
        return together
    if measured.stderr is None and reference.stderr is None:
        return None
    return math.hypot(measured.stderr or 0.0, factor * (reference.stderr or 0.0))


def _paired(name: str, sample: Sample, other: Sample, factor: float) -> float | None:
    """The same from the windows or questions that both were measured on; None where that is not known."""
    if sample.windows == other.windows and name in sample.influences and name in other.influences:
        return paired(sample.influences[name], other.influences[name], factor)
    if sample.answers and other.answers:
        ours, theirs = (mmlu.influences(answers).get(name) for answers in mmlu.aligned(sample.answers, other.answers))
        if ours is not None and theirs is not None:
            # As in `qa.mmlu.scores`, one more question that they answer differently either way: few questions without any must not look like certainty.
            return math.hypot(paired(ours, theirs, factor) or 0.0, math.sqrt(2) / np.count_nonzero(~np.isnan(ours)))
    return None


def paired(ours: Sequence[float | None] | Doubles, theirs: Sequence[float | None] | Doubles, factor: float) -> float | None:
    """Standard error of v - factor·r from both values' influences by window or question; one that only one of them was measured on counts for that alone."""
    first, second = (np.array([np.nan if value is None else value for value in given]) for given in (ours, theirs))
    difference: Doubles = np.where(np.isnan(first) & np.isnan(second), np.nan, np.nan_to_num(first) - factor * np.nan_to_num(second))
    return spread(difference)
