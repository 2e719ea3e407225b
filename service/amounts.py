"""Amounts, rates and times as a person reads them."""

from config.progress import Progress
from service.pace import Pace

_LARGE = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def byte_count(count: float) -> str:
    """Bytes in powers of 1000, as the Hub shows them."""
    for name, size in _LARGE:
        if count >= size:
            return f"{count / size:.2f} {name}"
    return f"{count:.0f} B"


def duration(seconds: float) -> str:
    """Seconds in the two largest units that matter."""
    if seconds < 59.5:
        return f"{max(0, round(seconds))} s"
    if seconds < 599.5:
        return _two(*divmod(round(seconds), 60), "min", "s")
    if seconds < 86_370:
        hours, minutes = divmod(round(seconds / 60), 60)
        return _two(hours, minutes, "h", "min") if hours else f"{minutes} min"
    return _two(*divmod(round(seconds / 3600), 24), "d", "h")


def _two(large: int, small: int, name: str, other: str) -> str:
    return f"{large} {name}" + (f" {small} {other}" if small else "")


def amount(progress: Progress) -> str:
    """So much of how much: "12 of 40 windows"."""
    if progress.unit == "bytes":
        return byte_count(progress.done) + ("" if progress.total is None else f" of {byte_count(progress.total)}")
    return f"{progress.done:,}{'' if progress.total is None else f' of {progress.total:,}'} {progress.unit}"


def speed(rate: float, unit: str) -> str:
    """Units a second, or a minute or an hour where that makes a number that can be read."""
    if unit == "bytes":
        return f"{byte_count(rate)}/s"
    for per, factor in (("s", 1), ("min", 60)):
        if rate * factor >= 1:
            return f"{_short(rate * factor)}/{per}"
    return f"{_short(rate * 3600)}/h"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def how_far(progress: Progress | None, pace: Pace, *, elapsed: float, estimate: float | None) -> tuple[str, ...]:
    """How far a stage at work has come, in parts of which the first matters most: amount, time left, rate; before anything is known, the time it has taken."""
    if progress is None:
        return (duration(elapsed) + ("" if estimate is None else f" of about {duration(estimate)}"),)
    left = "" if pace.left is None or progress.done == progress.total else f"{duration(pace.left)} left"
    rate = "" if pace.rate is None else speed(pace.rate, progress.unit)
    return tuple(part for part in (amount(progress), left, rate) if part)


def in_order(parts: tuple[str, ...]) -> str:
    """The parts of `how_far` as they are read: amount, rate, time left."""
    return ", ".join((parts[0], *reversed(parts[1:])))
