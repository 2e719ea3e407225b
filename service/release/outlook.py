"""What lies ahead of a run: the needs of its stages on this machine, with what is there already and what earlier runs taught."""

from service.execution.kept import StageStore
from service.machine.speed import speed
from service.release.forecast import Forecast, forecast, learned
from service.release.graph import Graph
from service.release.prospect import Prospect
from service.release.reuse import LookingJob, kept, run_of
from service.release.way import way
from service.release.work import Work
from service.store import Store


def outlook(store: Store, ahead: Prospect) -> Forecast:
    """The forecast of a run. Measures this machine for some seconds unless that was done today. Raises ToolError when it cannot be measured."""
    graph = way(ahead.recipe)
    return forecast(graph, ahead, speed(ahead.settings), learned(store), _kept(store, ahead, graph))


def looking(store: Store, ahead: Prospect, graph: Graph) -> tuple[Work, LookingJob]:
    """A run's way, for looking at what is there already, which changes nothing."""
    stages = StageStore(ahead.settings.folder, reading=True)
    job = LookingJob(store=store, run=run_of(store, ahead), recipe=ahead.recipe, settings=ahead.settings, stages=stages)
    return Work(job=job, api=ahead.api, graph=graph, products={"upstream": ahead.upstream}), job


def _kept(store: Store, ahead: Prospect, graph: Graph) -> frozenset[str]:
    """Names of the stages whose products are there already."""
    return kept(*looking(store, ahead, graph))
