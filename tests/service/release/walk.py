"""A graph of stages made up for a test, and what was done of it by either executor."""

import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from config.errors import MeasurementError
from config.words import Measurement
from service.execution.kept import Output
from service.release.graph import Phase, Stage, graph_of
from service.release.job import Job
from service.release.work import Work
from tests.service.helpers import at_work

Executor = Callable[[Work], Literal["done", "blocked"]]


class Walk:
    """A graph of which it is noted what was done."""

    def __init__(self, job: Job, executor: Executor) -> None:
        self.job, self.executor, self.done, self.stages = job, executor, [], []  # type: tuple[Job, Executor, list[str], list[Stage]]
        self.threads: dict[str, threading.Thread] = {}

    def stage(self, name: str, *also: str, does: Callable[[Work], object] = lambda work: None, phase: Phase = Phase.EXAMINE, **flags: Any) -> None:
        def work(at: Work) -> object:
            self.done.append(name)
            self.threads[name] = threading.current_thread()
            return does(at)

        self.stages.append(Stage(name=name, phase=phase, does=name, work=work, also=also, **flags))

    def carry_out(self) -> tuple[str, Work]:
        work = at_work(self.job, {})
        work.graph = graph_of(self.stages)
        return self.executor(work), work


def fail(work: Work) -> None:
    raise MeasurementError("it broke")


def share(value: float) -> Callable[[Work], Output]:
    measured = [asdict(Measurement(name="overlap.share", value=value, unit="share"))]
    return lambda work: Output(key="k", folder=Path("nowhere"), result={"measurements": measured}, files=(), seconds=0)
