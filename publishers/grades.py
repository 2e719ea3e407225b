"""In words how close a variant is to the 16-bit model, and which file a card recommends."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from config.cards import Recommendation
from config.words import Measurement

CONFIDENCE = 1.645  # standard errors: one-sided 95 %, as gates have it
ALIKE = 1.01  # files whose sizes differ by less than this factor are of one size

# Bounds between what llama.cpp's own table says of Llama 2 7B and Llama 3 8B (tools/perplexity/README.md, "LLaMA 2 vs. LLaMA 3 Quantization comparison"):
# mean KLD 0.0004 and 0.0014 at Q8_0, 0.0021 and 0.0055 at Q6_K, 0.013 and 0.031 at Q4_K_M, 0.11 and 0.45 at Q2_K; same top token 98.8 and 97.7 %, 97.5 and
# 96.0 %, 94.7 and 91.9 %, 85.6 and 71.1 %. So "nearly lossless" is what people know from 8 bits, "excellent" from 6, "very good" from 4 to 5
DIVERGENCE = ((0.002, "nearly lossless"), (0.01, "excellent"), (0.05, "very good"), (0.1, "good"), (0.25, "fair"))
SAME_TOP = ((0.98, "nearly lossless"), (0.96, "excellent"), (0.91, "very good"), (0.86, "good"), (0.75, "fair"))
WORST = "poor"
IDENTICAL = "identical"


class Candidate(Protocol):
    """A row of a card, say, as far as choosing goes."""

    @property
    def tag(self) -> str:
        """Its name."""

    @property
    def bytes(self) -> int:
        """Its size."""

    @property
    def measurements(self) -> Mapping[str, Measurement]:
        """What was measured, by name."""

    @property
    def waivers(self) -> Sequence[object]:
        """Gates that a person set aside for it."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A file, as far as choosing goes."""

    tag: str
    bytes: int
    measurements: Mapping[str, Measurement]
    waivers: Sequence[object] = ()


def divergence(found: Measurement | None) -> str | None:
    """The word for a mean KL divergence in nats; None where none was measured."""
    if found is None:
        return None
    return IDENTICAL if found.value <= 0 else next((word for bound, word in DIVERGENCE if found.value <= bound), WORST)


def same_top(found: Measurement | None) -> str | None:
    """The word for a share of tokens at which the first choice is the same; None where it was not measured."""
    if found is None:
        return None
    return IDENTICAL if found.value >= 1 else next((word for bound, word in SAME_TOP if found.value >= bound), WORST)


def recommended(rows: Sequence[Candidate], rule: Recommendation | str | None) -> str | None:
    """The tag that a recipe's rule recommends among published variants; None where there is no choice, no rule, or none that keeps it.

    Of files of one size the one of least divergence. What was published by a waiver is never recommended by a bound.
    """
    if len(rows) < 2 or rule is None:
        return None
    if isinstance(rule, str):
        return next((row.tag for row in rows if row.tag == rule), None)
    good = [row for row in rows if not row.waivers and keeps(rule, row.measurements.get(rule.measure))]
    if not good:
        return None
    smallest = min(row.bytes for row in good)
    return min((row for row in good if row.bytes <= ALIKE * smallest), key=lambda row: (_mean(row), row.bytes, row.tag)).tag


def keeps(rule: Recommendation, found: Measurement | None) -> bool:
    """Whether a figure keeps a bound with its error."""
    if found is None:
        return False
    error = CONFIDENCE * (found.stderr or 0.0)
    return (rule.at_most is None or found.value + error <= rule.at_most) and (rule.at_least is None or found.value - error >= rule.at_least)


def outdone(rows: Sequence[Candidate]) -> list[tuple[str, list[str]]]:
    """Tags of files with those of others that are as large or larger and further from the 16-bit model, as surely as gates want it.

    Each of the latter is named once, with the closest of the files that outdo it; of files that are the same by size and divergence the first one does.
    """
    found: dict[str, list[str]] = {}
    for place, row in enumerate(rows):
        better = [other for at, other in enumerate(rows) if at != place and _outdoes(other, row, first=at < place)]
        if better:
            found.setdefault(min(better, key=lambda other: (_mean(other), other.bytes)).tag, []).append(row.tag)
    return sorted(found.items())


def _outdoes(other: Candidate, row: Candidate, *, first: bool) -> bool:
    """Whether nobody loses by taking the other; files of the same size and figures are the same file under two names."""
    ours, theirs = row.measurements.get("kld.mean"), other.measurements.get("kld.mean")
    if ours is None or theirs is None or other.bytes > row.bytes or other.waivers:
        return False
    if theirs.value == ours.value and ours.value > 0:
        return first or other.bytes < row.bytes
    return theirs.value + CONFIDENCE * math.hypot(ours.stderr or 0.0, theirs.stderr or 0.0) < ours.value


def _mean(row: Candidate) -> float:
    found = row.measurements.get("kld.mean")
    return found.value if found is not None else float("inf")
