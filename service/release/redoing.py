"""Carrying a run out again of which some stages are to be done anew, although what they made is kept."""

from collections.abc import Sequence
from dataclasses import replace

from config.data import as_written
from config.errors import SluiceError
from config.settings import Settings
from config.written import Written
from service.release.graph import Graph
from service.release.lifecycle import named
from service.release.way import way
from service.runs.recipe import recipe_of
from service.runs.steering import Actor, refuse_unended
from service.store import RunRecord, Store, order_of


class RedoRefused(SluiceError):
    """The run has no stage of that name."""


def refuse_unknown(graph: Graph, stages: Sequence[str]) -> None:
    """Raise RedoRefused where the way of a release has no stage of one of these names."""
    try:
        named(graph, stages)
    except SluiceError as error:
        raise RedoRefused(str(error)) from error


def redo(store: Store, settings: Settings, run: int, stages: Sequence[str], actor: Actor) -> RunRecord:
    """Queue a run again that has ended; these stages are done anew, and those after them where that changed anything.

    Raises UnknownRun, SteeringRefused when it has not ended, NoRecipe, RedoRefused.
    """
    record = store.run(run)
    refuse_unended(record)
    written = Written(content=recipe_of(store, run).content, told=f"The recipe of run {run}", folder=settings.folder)
    refuse_unknown(way(written.parsed(data=False, locate=as_written)), stages)
    again, _ = store.enqueue(replace(order_of(record, trigger="redo"), redo=tuple(stages)), again=True)
    store.audit(actor.source, f"run/{run}", "redo", {"stages": list(stages), "attempt": again.attempt, **actor.details})
    return again
