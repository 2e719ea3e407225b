"""The way of a release as data: stages, each declared once, and the graph that they make by taking one another's products.

Nothing here does any work. The executor walks a graph; the dry run, the early checks, progress, status, the command `sluice stages` and the report read it.
"""

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from service.execution.kept import Input

if TYPE_CHECKING:
    from service.machine.speed import Speed
    from service.release.prospect import Prospect
    from service.release.work import Work


class Phase(IntEnum):
    """The parts of the way, in order."""

    EXAMINE = 1  # look for what would spoil every variant
    PREPARE = 2  # what variants are measured with
    BUILD = 3
    PLAN = 4  # mixes for this model, and their files
    MEASURE = 5
    JUDGE = 6
    PUBLISH = 7


@dataclass(frozen=True, kw_only=True)
class Whole:
    """All files of a stage's output, as a folder; or those chosen by their paths, where the stage that takes them reads no others."""

    stage: str
    chosen: Callable[[str], bool] | None = None


@dataclass(frozen=True, kw_only=True)
class FileOf:
    """One file of a stage's output; without a path the one that its result calls `file`."""

    stage: str
    path: str | None = None
    numbers: bool = False  # of a GGUF file: the stage that takes it reads nothing of its header that only describes the model


@dataclass(frozen=True, kw_only=True)
class Data:
    """A file or folder of the operator."""

    path: Path


Source = Whole | FileOf | Data | Input
"""Where a stage's input comes from; an `Input` is one that is there already."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """A parameter that is known when another stage is done: a value of its result."""

    stage: str
    name: str


@dataclass(frozen=True, kw_only=True)
class OfRelease:
    """A parameter that says which release it is: its `repo`, or its `name`, without the owner."""

    name: Literal["repo", "name"]


@dataclass(frozen=True, kw_only=True)
class OfHub:
    """A parameter that is the address of the Hub that releases come from; None where it has no lasting one."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """A function that runs in a process of its own: its outputs depend on the inputs' digests and the parameters, and on nothing else."""

    function: str  # "builders.convert:convert"
    inputs: Mapping[str, Source | Sequence[Source]]
    params: Mapping[str, Any] = field(default_factory=dict)  # values that JSON can hold, `Result`, `OfRelease`, `OfHub`
    threaded: bool = True  # the function also takes `threads`, which changes its speed and not its outputs

    @property
    def takes(self) -> tuple[str, ...]:
        """The stages whose outputs it reads."""
        sources = [source for value in self.inputs.values() for source in (value if isinstance(value, Sequence) else (value,))]
        named = [source.stage for source in sources if isinstance(source, Whole | FileOf)]
        return tuple(dict.fromkeys([*named, *(value.stage for value in self.params.values() if isinstance(value, Result))]))


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a stage needs of a machine."""

    seconds: float = 0.0
    memory: int = 0  # bytes, at its peak
    disk: int = 0  # bytes that its outputs and its temporary files take
    gpu: bool = False  # uses one where there is one


Cost = Callable[["Prospect", "Speed"], Needs]
"""What a stage will need for this release on this machine."""


def nothing(prospect: "Prospect", speed: "Speed") -> Needs:
    """The cost of what takes no time worth telling."""
    return Needs()


@dataclass(frozen=True, kw_only=True)
class Check:
    """Something that must hold before a stage can succeed, and that can be known before the first expensive one."""

    name: str  # "publishing token"
    stage: str  # that would fail by it: its name, without the variant
    look: Callable[["Prospect"], Iterable[str]]  # what is wrong, a sentence each; nothing when all is well
    apart: bool = False  # takes a process of its own: looked for by a dry run and where a run begins, not where one is put into the queue


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of the way. What it makes is its product: the output of its call, or what its function returns."""

    name: str  # unique in the graph
    phase: Phase
    does: str  # for a person: "convert the model to a 16-bit GGUF file"
    work: Call | Callable[["Work"], object]  # a function runs in the service and may make several calls, whose number depends on what they find
    also: tuple[str, ...] = ()  # stages whose products a function takes; a call's own are in its inputs
    after: tuple[str, ...] = ()  # stages that are only done before, so that what is cheap or tells more is found first
    variant: str = ""  # tag of the variant that it is for, of which its name speaks; stages of other variants are its like
    unit: str = ""  # of its progress, plural: "chunks"
    cost: Cost = nothing
    measures: tuple[str, ...] = ()  # names of the measurements that it makes
    checks: tuple[Check, ...] = ()
    gated: bool = False  # its output's measurements are of the release: gates on them are judged at once, and may end the way there
    alone: bool = False  # when it fails, only what takes its product fails with it
    tolerant: bool = False  # takes what there is of its inputs, whatever failed
    always: bool = False  # done even if the gates on the release blocked everything
    records: bool = False  # changes the database or the Hub: nothing that a dry run may do

    @property
    def takes(self) -> tuple[str, ...]:
        """The stages whose products it takes."""
        return tuple(dict.fromkeys([*(self.work.takes if isinstance(self.work, Call) else ()), *self.also]))

    @property
    def awaited(self) -> tuple[str, ...]:
        """The stages that must be done first: those whose products it takes, and those that it comes after."""
        return tuple(dict.fromkeys([*self.takes, *self.after]))

    @property
    def family(self) -> str:
        """Its name without the variant."""
        return self.name.removesuffix(self.variant).strip()

    @property
    def like(self) -> str:
        """What it has in common with the stages that do the same for other variants."""
        return f"{self.family}: {self.does}"


@dataclass(frozen=True, kw_only=True)
class Graph:
    """The stages of one release in the order in which one machine goes through them: each after what it takes, phase by phase, else as declared."""

    stages: tuple[Stage, ...]

    def __getitem__(self, name: str) -> Stage:
        return next(stage for stage in self.stages if stage.name == name)

    def __contains__(self, name: str) -> bool:
        return any(stage.name == name for stage in self.stages)

    @property
    def measures(self) -> frozenset[str]:
        """Names of everything that is measured on the way."""
        return frozenset(name for stage in self.stages for name in stage.measures)

    def awaits(self, stage: Stage) -> tuple[str, ...]:
        """What must be done before a stage may begin: what it takes or comes after, and every gate on the release of an earlier phase."""
        gated = (other.name for other in self.stages if other.gated and other.phase < stage.phase)
        return tuple(dict.fromkeys([*stage.awaited, *gated]))

    @property
    def last_gated(self) -> str | None:
        """The stage after which every gate on the release must be decided."""
        return next((stage.name for stage in reversed(self.stages) if stage.gated), None)


def graph_of(stages: Iterable[Stage]) -> Graph:
    """The graph of these stages.

    Raises ValueError when two share a name, one takes what nobody makes or what a later phase makes, or they wait for one another in a circle.
    """
    declared = list(stages)
    places = {stage.name: place for place, stage in enumerate(declared)}
    if len(places) != len(declared):
        raise ValueError(f"stage names must be unique: {sorted(stage.name for stage in declared)}")
    waiting = {stage.name: set(stage.awaited) for stage in declared}
    if missing := {(name, taken) for name, awaited in waiting.items() for taken in awaited if taken not in places}:
        raise ValueError(f"stages take what no stage makes: {sorted(missing)}")
    if late := {(stage.name, taken) for stage in declared for taken in waiting[stage.name] if declared[places[taken]].phase > stage.phase}:
        raise ValueError(f"stages take what a later phase makes: {sorted(late)}")
    ready = [(stage.phase, place) for place, stage in enumerate(declared) if not waiting[stage.name]]
    heapq.heapify(ready)
    ordered: list[Stage] = []
    while ready:
        done = declared[heapq.heappop(ready)[1]]
        ordered.append(done)
        for stage in declared:
            if done.name in waiting[stage.name]:
                waiting[stage.name].remove(done.name)
                if not waiting[stage.name]:
                    heapq.heappush(ready, (stage.phase, places[stage.name]))
    if len(ordered) != len(declared):
        raise ValueError(f"stages wait for one another in a circle: {sorted(places.keys() - {stage.name for stage in ordered})}")
    return Graph(stages=tuple(ordered))
