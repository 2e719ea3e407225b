"""Which stages of a run need not be done again: the same walk as the run's, that looks outputs up and makes none."""

from dataclasses import dataclass
from datetime import UTC, datetime

from config.errors import SluiceError
from service.execution.looking import Looking, NotKept
from service.release.executor import step
from service.release.job import Job
from service.release.prospect import Prospect
from service.release.work import Work
from service.store import RunOrder, RunRecord, Store


@dataclass(kw_only=True)
class LookingJob(Looking, Job):
    """A job that does nothing but look outputs up."""


def kept(work: Work, job: LookingJob) -> frozenset[str]:
    """Names of the stages whose outputs are there already; stages that record something are never among them."""
    lacking: set[str] = set()
    found: set[str] = set()
    for stage in work.graph.stages:
        if stage.records or lacking.intersection(stage.takes):
            lacking.add(stage.name)
            continue
        before = job.found_outputs
        try:
            if stage.name not in work.products:
                step(work, stage)
        except (NotKept, SluiceError):
            lacking.add(stage.name)
        if job.found_outputs > before:
            found.add(stage.name)
    return frozenset(found - lacking - work.failed.keys())


def run_of(store: Store, ahead: Prospect) -> RunRecord:
    """The run of this release and recipe; where it was never queued, what it would be, without a number."""
    digest, now = ahead.recipe.digest(), datetime.now(UTC)
    order = RunOrder(
        release=ahead.upstream.release,
        recipe=ahead.recipe.name,
        recipe_digest=digest,
        namespace=ahead.namespace,
        trigger="dry run",
        folder=ahead.folder,
        target=ahead.target,
    )
    return store.ordered(order) or RunRecord(
        **vars(order), id=0, state="queued", attempt=1, error=None, lease=0, worker=None, created=now, started=None, finished=None, disk_high_water=None
    )
