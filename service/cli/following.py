"""`sluice status --follow`: shows a run that some process carries out, from what that process writes down."""

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from service.cli.display import Watch, progress
from service.cli.display.live import LINE_SECONDS
from service.cli.display.watch import Board, Work
from service.execution.workbench import Event
from service.runs.ahead import ahead
from service.runs.changing import GOING_ON, substance
from service.runs.summary import summary
from service.store import RunRecord, StageRecord, Store

LOOK_SECONDS = 1.0  # between two looks into the database


def newest_running(store: Store) -> int | None:
    """The number of the newest run that is being carried out."""
    return next((run.id for run in store.runs(limit=1, state="running")), None)


def follow(store: Store, run: int, console: Console, *, seconds: float = LOOK_SECONDS, line_seconds: float = LINE_SECONDS) -> None:
    """Show the run's stages as the command that carries it out does, until it is carried out no more. Raises UnknownRun."""
    seen: set[int] = set()
    waiting = False
    with progress(console, line_seconds=line_seconds) as watch:
        while True:
            record = store.run(run)
            steps = [step for step in store.stages(run) if record.started and step.started >= record.started]
            _show(watch, record, steps, seen)
            if record.state == "running" and (going := ahead(store.forecast(run), steps)) is not None:
                watch.expect(Work(stage=going.stage, began=going.began, estimate=going.estimate), going.coming)
            if record.state not in GOING_ON:
                return
            if record.state == "queued" and not waiting:
                console.print(f"run {run} is queued and waits for a worker")
                waiting = True
            time.sleep(seconds)


def _show(watch: Watch, record: RunRecord, stages: Sequence[StageRecord], seen: set[int]) -> None:
    """Show the stages of the present attempt, and print those that have ended and were not `seen` yet."""
    at_work, endings, finished = [], [], 0
    for stage in stages:
        if stage.state == "running":
            at_work.append(Work(stage=stage.name, began=stage.started, estimate=stage.estimate, phase=stage.phase))
        elif stage.state != "interrupted":
            finished += 1
            if stage.id not in seen:
                seen.add(stage.id)
                endings.append(Event(stage=stage.name, state=stage.state, seconds=stage.seconds or 0.0, message=stage.error or ""))
    watch.show(Board(began=record.started or datetime.now(UTC), at_work=tuple(at_work), finished=finished), endings)


def changes(store: Store, run: int, *, seconds: float = LOOK_SECONDS) -> Iterator[dict[str, Any]]:
    """The run's summary now, and each time that something has changed in it but the clock, until it is carried out no more. Raises UnknownRun."""
    told = None
    while True:
        document = summary(store, run)
        if (found := substance(document)) != told:
            told = found
            yield document
        if document["state"] not in GOING_ON:
            return
        time.sleep(seconds)
