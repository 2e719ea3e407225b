"""Which stages of a run need not be done again: the same walk as the run's, that looks outputs up and makes none."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from config.errors import SluiceError
from service.execution.kept import Inputs, Output, stage_key
from service.release.executor import step
from service.release.job import Job
from service.release.prospect import Prospect
from service.release.work import Work
from service.store import RunOrder, RunRecord, Store


class NotKept(Exception):
    """An output that would have to be made. Not a SluiceError: a stage must not take it for a failure that concerns one variant."""


@dataclass(kw_only=True)
class Looking(Job):
    """A job that does nothing but look outputs up, and records nothing."""

    found_outputs: int = 0

    def _once(self, name: str, function: str, inputs: Inputs, params: Mapping[str, Any], work: Callable[[Path], dict[str, Any]]) -> Output:
        if (kept := self.stages.look_up(stage_key(function, inputs, params))) is None:
            raise NotKept(name)
        self.found_outputs += 1
        return kept


def kept(work: Work, job: Looking) -> frozenset[str]:
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
        **vars(order), id=0, state="queued", attempt=1, error=None, worker=None, created=now, started=None, finished=None, disk_high_water=None
    )
