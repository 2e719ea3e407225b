"""`sluice status --follow`: shows a run that some process carries out, from what that process writes down."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Console

from service.cli.display import Watch, progress
from service.cli.display.live import LINE_SECONDS
from service.cli.display.watch import Board, Work
from service.execution.workbench import Event
from service.operations import Operations
from service.runs.changing import GOING_ON
from service.runs.going import Going, Step
from service.store import RunFilter

LOOK_SECONDS = 1.0  # between two looks


def newest_running(operations: Operations) -> int | None:
    """The number of the newest run that is being carried out."""
    return next((run.run for run in operations.runs(RunFilter(state="running"), limit=1)), None)


def follow(operations: Operations, run: int, console: Console, *, seconds: float = LOOK_SECONDS, line_seconds: float = LINE_SECONDS) -> None:
    """Show the run's stages as the command that carries it out does, until it is carried out no more. Raises UnknownRun."""
    seen: set[int] = set()
    waiting = False
    with progress(console, line_seconds=line_seconds) as watch:
        while True:
            found = operations.going(run)
            _show(watch, found, found.steps, seen)
            if found.coming is not None:
                now = found.coming
                watch.expect(Work(stage=now.stage, began=now.began, estimate=now.estimate), now.then)
            if found.state not in GOING_ON:
                return
            if found.state == "queued" and not waiting:
                console.print(f"run {run} is queued and waits for a worker")
                waiting = True
            time.sleep(seconds)


def _show(watch: Watch, found: Going, steps: Sequence[Step], seen: set[int]) -> None:
    """Show the steps of the present attempt, and print those that have ended and were not `seen` yet."""
    at_work, endings, finished = [], [], 0
    for step in steps:
        if step.state == "running":
            at_work.append(Work(stage=step.name, began=step.started, estimate=step.estimate, phase=step.phase))
        elif step.state != "interrupted":
            finished += 1
            if step.id not in seen:
                seen.add(step.id)
                endings.append(Event(stage=step.name, state=step.state, seconds=step.seconds or 0.0, message=step.error or ""))
    watch.show(Board(began=found.started or datetime.now(UTC), at_work=tuple(at_work), finished=finished), endings)
