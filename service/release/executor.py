"""The executor on one machine: walks the graph of a run stage by stage, each after what it takes. `abreast` is the one on several."""

from typing import Literal

from config.errors import NoSpace, SluiceError, Unavailable
from service.execution.leaving import checkpoint
from service.execution.workbench import Event, steps_of
from service.release.graph import Call, Stage
from service.release.products import JUDGED, Judged
from service.release.stages.judge import blocked
from service.release.work import Work


def carry_out(work: Work) -> Literal["done", "blocked"]:
    """Go the whole way, each stage once. Returns how it ended; raises the error of a stage whose failure is the run's."""
    over = False
    try:
        for stage in work.graph.stages:
            if not over or stage.always:
                checkpoint(whole=True)
                _expect(work, stage)
                step(work, stage)
                over = over or (stage.gated and blocked(work, stage))
    finally:
        work.job.listener(Event(stage="", state="expected"))  # nothing more
    return outcome(work)


def outcome(work: Work) -> Literal["done", "blocked"]:
    """How a run ended whose stages are done."""
    judged = work.maybe(JUDGED, Judged)
    return "done" if judged is not None and any(item.passed for item in judged.built) else "blocked"


def _expect(work: Work, stage: Stage) -> None:
    """Tell who watches which stage it is now, and what comes after it."""
    estimates = work.job.estimates
    if estimates:
        after = work.graph.stages[work.graph.stages.index(stage) + 1 :]
        coming = {other.name: estimates.get(other.name) for other in after}
        work.job.listener(Event(stage=stage.name, state="expected", estimate=estimates.get(stage.name), coming=coming))


def step(work: Work, stage: Stage) -> None:
    """Do one stage and keep its product; of one that may fail alone, or takes what such a one did not make, its error."""
    lacking = next((work.failed[name] for name in stage.takes if name in work.failed), None)
    if lacking is not None and not stage.tolerant:
        work.failed[stage.name] = lacking
        return
    try:
        with steps_of(stage.name):
            work.products[stage.name] = work.call(stage.name, stage.work) if isinstance(stage.work, Call) else stage.work(work)
    except SluiceError as error:
        if not stage.alone or isinstance(error, Unavailable | NoSpace):  # what passes is no reason to go without a product
            raise
        work.failed[stage.name] = error
