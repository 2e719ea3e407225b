"""What is known of the stages that somebody watches: which are at work and how far they have come, and how many are finished."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from rich.markup import escape

from service.amounts import amount, duration, how_far, in_order
from service.execution.workbench import Event
from service.pace import Phase, heard, pace, run_left, stage_left

_MARKS = {"done": "[green]✓[/]", "reused": "[cyan]↺[/]", "failed": "[red]✗[/]", "remark": "[yellow]![/]"}


@dataclass(frozen=True, kw_only=True)
class Work:
    """A stage at work."""

    stage: str
    began: datetime
    estimate: float | None  # seconds that it is expected to take
    phase: Phase | None = None

    def elapsed(self, now: datetime) -> float:
        """Seconds that it has taken."""
        return max(0.0, (now - self.began).total_seconds())

    def left(self, now: datetime) -> float | None:
        """Seconds to its end, when they can be known."""
        return stage_left(self.elapsed(now), self.estimate, self.phase, now)

    def how_far(self, now: datetime) -> tuple[str, ...]:
        """How far it has come, in parts of which the first matters most."""
        progress = None if self.phase is None else self.phase.latest
        return how_far(progress, pace(self.phase, now), elapsed=self.elapsed(now), estimate=self.estimate)


@dataclass(frozen=True, kw_only=True)
class Board:
    """The stages of a run at one moment."""

    began: datetime
    at_work: tuple[Work, ...] = ()
    finished: int = 0
    within: Work | None = None  # what the stages at work are steps of
    to_come: Mapping[str, float | None] | None = None  # after that, with their estimates in seconds; None when nobody said which stages there will be

    def after(self, event: Event, now: datetime) -> "Board":
        """The board when that has happened."""
        if event.state == "expected":
            expected = Work(stage=event.stage, began=now, estimate=event.estimate)
            return replace(self, within=expected, to_come=event.coming)
        if event.state == "progressed":
            return self if event.progress is None else replace(self, at_work=tuple(_gone_on(work, event, now) for work in self.at_work))
        others = tuple(work for work in self.at_work if work.stage != event.stage)
        if event.state == "started":
            estimate = event.estimate
            if estimate is None and self.within is not None and self.within.stage == event.stage:
                estimate = self.within.estimate
            begun = Work(stage=event.stage, began=now - timedelta(seconds=event.seconds), estimate=estimate)
            return replace(self, at_work=(*others, begun))
        ended = len(self.at_work) - len(others)  # what was never begun is no stage, but a remark
        return replace(self, at_work=others, finished=self.finished + ended)

    def overall(self, now: datetime) -> str:
        """How far the whole has come."""
        of = "" if self.to_come is None else f" of {self.finished + max(1, len(self.at_work)) + len(self.to_come) if self.busy else self.finished}"
        noun = "stage" if self.finished == 1 and not of else "stages"
        left = self.left(now)
        rest = "" if left is None or not self.busy else f", about {duration(left)} left"
        return f"{self.finished}{of} {noun} finished in {duration((now - self.began).total_seconds())}{rest}"

    @property
    def busy(self) -> bool:
        """Whether there is more to do, as far as anybody said."""
        return bool(self.at_work or self.to_come)

    def left(self, now: datetime) -> float | None:
        """Seconds to the end of the run; None when that cannot be known. A stage takes no less than its step at work, nor than its own estimate leaves."""
        if self.to_come is None:
            return None
        steps = run_left((work.left(now) for work in self.at_work), ())
        whole = None if self.within is None else self.within.left(now)
        known = [seconds for seconds in (steps, whole) if seconds is not None]
        return run_left((max(known, default=None),) if known or self.at_work else (), self.to_come.values())


def _gone_on(work: Work, event: Event, now: datetime) -> Work:
    return work if work.stage != event.stage or event.progress is None else replace(work, phase=heard(work.phase, event.progress, now))


@dataclass
class Watch:
    """A listener that keeps the board, and prints a line for each stage that has ended. May be told from any thread."""

    printed: Callable[[str, str], None]  # prints a line that stays, from its head and its words, both markup
    board: Board = field(default_factory=lambda: Board(began=datetime.now(UTC)))
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __call__(self, event: Event) -> None:
        """Hear what happened to a stage."""
        with self.lock:
            self.board = self.board.after(event, datetime.now(UTC))
            if event.state not in {"expected", "started", "progressed"}:
                self.printed(*ended(event))

    def expect(self, within: Work, coming: Mapping[str, float | None]) -> None:
        """Hear which stage the steps at work are of, and what comes after it."""
        with self.lock:
            self.board = replace(self.board, within=within, to_come=coming)

    def show(self, board: Board, endings: Sequence[Event]) -> None:
        """Take over a board from elsewhere, after these stages have ended."""
        with self.lock:
            self.board = board
            for event in endings:
                self.printed(*ended(event))

    def where(self) -> str:
        """At which stage the work is, how far, and after how long."""
        now = datetime.now(UTC)
        return "; ".join(
            f"{work.stage}{f', {amount(work.phase.latest)},' if work.phase else ''} after {duration(work.elapsed(now))}" for work in self.board.at_work
        )


def told(work: Work, now: datetime) -> str:
    """How far a stage at work has come, in one line."""
    return in_order(work.how_far(now))


def ended(event: Event) -> tuple[str, str]:
    """Head and words of the line of a stage that has ended, as markup."""
    seconds = f"{event.seconds:7.1f} s" if event.seconds else " " * 9
    return f"{_MARKS[event.state]} {seconds}", escape(event.stage) + (f"  {escape(event.message)}" if event.message else "")
