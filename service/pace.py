"""How fast a stage works and how long it will take: the one place that computes it, for the terminal, a pipe, `sluice status` and the API.

A stage may count several things one after the other, so figures rest on its present phase alone: one unit, counted upwards.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from config.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Phase:
    """What was reported in one unit since it was first reported, or since it last fell."""

    first: int  # done when the phase was begun
    began: datetime
    latest: Progress
    reported: datetime  # when more was done the last time


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How a phase goes on; None where nobody can know."""

    rate: float | None = None  # units a second
    left: float | None = None  # seconds to the end of the phase


def heard(phase: Phase | None, progress: Progress, at: datetime) -> Phase:
    """The phase after a report: the same one gone on, or a new one when the unit is another or less is done than before."""
    if phase is None or progress.unit != phase.latest.unit or progress.done < phase.latest.done:
        return Phase(first=progress.done, began=at, latest=progress, reported=at)
    return replace(phase, latest=progress, reported=at if progress.done > phase.latest.done else phase.reported)


def pace(phase: Phase | None, now: datetime) -> Pace:
    """Rate and time left, from what was done since the phase began.

    Between two reports the unit at hand is taken to be as fast as those before. When it takes longer than they did, the whole phase counts as slower, so that
    the rate of a stage that hangs falls and its time left grows. How much longer the last unit will take when it is late, nobody knows.
    """
    if phase is None:
        return Pace()
    done, total = phase.latest.done - phase.first, phase.latest.total
    remaining = None if total is None else max(0, total - phase.latest.done)
    worked, silent = (phase.reported - phase.began).total_seconds(), max(0.0, (now - phase.reported).total_seconds())
    if done <= 0 or worked <= 0:
        return Pace(left=0.0 if remaining == 0 else None)
    rate = done / worked
    if not remaining:
        return Pace(rate=rate, left=None if remaining is None else 0.0)
    if silent * rate <= 1:
        return Pace(rate=rate, left=remaining / rate - silent)
    rate = (done + 1) / (worked + silent)
    return Pace(rate=rate, left=(remaining - 1) / rate if remaining > 1 else None)


def stage_left(elapsed: float, estimate: float | None, phase: Phase | None, now: datetime) -> float | None:
    """Seconds to the end of a stage at work: what its estimate leaves, but no less than its present phase needs; None when neither is known."""
    known = [left for left in (pace(phase, now).left, None if estimate is None else max(0.0, estimate - elapsed)) if left is not None]
    return max(known, default=None)


def run_left(at_work: Iterable[float | None], to_come: Iterable[float | None]) -> float | None:
    """Seconds to the end of a run from those of its stages at work and to come, which follow one another; None unless all are known."""
    parts = [*at_work, *to_come]
    known = [part for part in parts if part is not None]
    return sum(known) if parts and len(known) == len(parts) else None
