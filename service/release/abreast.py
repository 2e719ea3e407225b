"""The executor on several machines: walks the graph of a run with every stage at work whose inputs are there, as far as the place has room.

What changes the database or the Hub is done in this thread while nothing else is at work, and so is a stage that nothing can be done beside.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from service.execution.beside import Crew
from service.execution.leaving import Left, checkpoint
from service.execution.workbench import Event
from service.release.executor import outcome, step
from service.release.graph import Graph, Stage
from service.release.stages.judge import blocked
from service.release.work import Work


def carry_out(work: Work) -> Literal["done", "blocked"]:
    """Go the whole way, each stage once. Returns how it ended; raises the error of a stage whose failure is the run's, when the others have left."""
    way = _Way(graph=work.graph)
    try:
        with Crew[str, None]() as hands:
            while way.undone:
                halted = _halted()
                if halted is not None and not hands.busy:
                    raise halted
                ready = [] if halted is not None else way.ready(idle=not hands.busy)
                for stage in ready:
                    _expect(work, way, stage)
                    if not hands.busy and len(ready) == 1:
                        step(work, stage)
                        way.pass_by(work, stage)
                    else:
                        hands.begin(stage.name, partial(step, work, stage))
                if hands.busy:
                    way.pass_by(work, work.graph[hands.next()[0]])
    finally:
        work.job.listener(Event(stage="", state="expected"))  # nothing more
    return outcome(work)


def _halted() -> Left | None:
    """By what the work is left as soon as what was begun is whole."""
    try:
        checkpoint(whole=True)
    except Left as left:
        return left
    return None


@dataclass
class _Way:
    """How far the stages of a run have come."""

    graph: Graph
    over: bool = False  # a gate on the release blocked everything
    undone: dict[str, set[str]] = field(init=False)  # by stage that is not done, those that it still waits for
    begun: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.undone, recording = {}, list[str]()
        for stage in self.graph.stages:
            # what a person has to decide, for instance, is decided before anything is built
            self.undone[stage.name] = {*self.graph.awaits(stage), *recording}
            recording += [stage.name] if stage.records else []

    def ready(self, *, idle: bool) -> list[Stage]:
        """The stages that can be begun, in the order of the graph; they count as begun. One that records is alone."""
        found = list[Stage]()
        for stage in self.graph.stages:
            if stage.name in self.undone and self.over and not stage.always and stage.name not in self.begun:
                self._done(stage)
            elif stage.name in self.undone and not self.undone[stage.name] and stage.name not in self.begun:
                if not stage.records:
                    found.append(stage)
                elif idle and not found:
                    found = [stage]
                    break
        self.begun |= {stage.name for stage in found}
        return found

    def pass_by(self, work: Work, stage: Stage) -> None:
        """A stage is done."""
        self.over = self.over or (stage.gated and blocked(work, stage))
        self._done(stage)

    def _done(self, stage: Stage) -> None:
        del self.undone[stage.name]
        for awaited in self.undone.values():
            awaited.discard(stage.name)


def _expect(work: Work, way: _Way, stage: Stage) -> None:
    """Tell who watches which stage it is now, and what is still to come, whose time those share that work beside one another."""
    if estimates := work.job.estimates:
        coming: dict[str, float | None] = {}
        for name in (name for name in way.undone if name not in way.begun):
            seconds = estimates.get(name)
            coming[name] = None if seconds is None else seconds / max(1, work.job.place.lanes())
        work.job.listener(Event(stage=stage.name, state="expected", estimate=estimates.get(stage.name), coming=coming))
