"""The graph of a run's stages with the state of each, and its phases for screens that have no room for that."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from markupsafe import Markup

from config.data import as_written
from config.errors import SluiceError
from config.written import Written, read_recipe
from service.release.drawing import boxes, draw
from service.release.graph import Graph
from service.release.way import way
from service.store import RunRecord, StageRecord, Store

ORDER = ("failed", "running", "interrupted", "done", "waiting")
"""States of stages, the one that matters most first."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A phase of the way."""

    name: str
    state: str
    done: int  # stages
    total: int


@lru_cache(maxsize=64)
def graph_of(store: Store, recipe: str, digest: str) -> Graph | None:
    """The way that a recipe of that digest described when a run was queued with it; None where none was kept and its file cannot be read any more."""
    kept = store.recipe(digest)
    try:
        written = read_recipe(recipe) if kept is None else Written(content=kept.content, told=f"The recipe {recipe}", folder=Path())
        return way(written.parsed(data=False, locate=as_written))
    except SluiceError:
        return None


def picture(graph: Graph | None, run: RunRecord, steps: Sequence[StageRecord]) -> Markup | None:
    """The graph as SVG, in the classes of the page's style; None where it is not known."""
    if graph is None:
        return None
    states = _states(graph, run, steps)
    marks = {}
    for box in boxes(graph):
        found = {states[stage.name] for stage in box.stages}
        partly = "partly" if len(found) > 1 and found <= {"done", "waiting"} else None
        marks[box.name] = partly or next(state for state in ORDER if state in found)
    return Markup(draw(graph, marks))  # noqa: S704 - our own drawing, in which all text is escaped


def phases(graph: Graph | None, run: RunRecord, steps: Sequence[StageRecord]) -> list[Step]:
    """The phases in order, each with how many of its stages are done; none where the graph is not known."""
    if graph is None:
        return []
    states = _states(graph, run, steps)
    found = []
    for phase in dict.fromkeys(stage.phase for stage in graph.stages):
        of = [states[stage.name] for stage in graph.stages if stage.phase is phase]
        state = next(state for state in ORDER if state in of)
        if state == "done" and "waiting" in of:
            state = "partly"
        found.append(Step(name=phase.name.lower(), state=state, done=of.count("done"), total=len(of)))
    return found


def _states(graph: Graph, run: RunRecord, steps: Sequence[StageRecord]) -> Mapping[str, str]:
    """The state of each stage in the run's present attempt, from its steps; one without any was passed by when a later one has some."""
    of: dict[str, set[str]] = {stage.name: set() for stage in graph.stages}
    for step in steps:
        owner = step.stage or step.name
        if owner in of and (run.started is None or step.started >= run.started):
            of[owner].add("done" if step.state == "reused" else step.state)
    began = [place for place, stage in enumerate(graph.stages) if of[stage.name]]
    passed = len(graph.stages) if run.state == "done" else max(began, default=0)
    return {
        stage.name: next((state for state in ORDER if state in of[stage.name]), "done" if place < passed else "waiting")
        for place, stage in enumerate(graph.stages)
    }
