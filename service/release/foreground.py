"""Start or continue one run and carry it out in this process, holding its lease: what `sluice release` and `sluice demo` do."""

import logging
from collections.abc import Collection
from contextlib import nullcontext, suppress
from typing import Any

from config.errors import SluiceError
from config.settings import Settings
from engines import orphans
from service.execution.workbench import Event, Listener, told
from service.hubclient import connect, patient
from service.release import datasets
from service.release.intake import ReleaseRequest, queue_release
from service.release.lifecycle import Expected, execute, named
from service.release.way import way
from service.runs import own_account
from service.runs.summary import summary
from service.store import LeaseLost, open_store, worker_name
from service.store.lease import LEASE_SECONDS, kept_lease

log = logging.getLogger(__name__)

READ = "read the folder"
PATIENCE = 10.0  # seconds that each call waits for a fault of the moment to pass before there is a run, while somebody waits who may have named a wrong address


def run(
    settings: Settings,
    wanted: ReleaseRequest,
    listener: Listener,
    expected: Expected = lambda ahead, forecast: None,
    *,
    redo: Collection[str] = (),
) -> dict[str, Any]:
    """Release what is wanted and return the run's summary; a run that failed at a stage is a summary too, with its error.

    `expected` is told what lies ahead before the first stage; the stages `redo` are done again although what they made is there. Raises SluiceError when no run
    can be started: the release, the recipe, the token or the database is not usable, or another process holds the run.
    """
    if swept := orphans.sweep():
        log.warning("ended %s, which a killed process has left at work", ", ".join(swept), extra={"action": "sweep"})
    store = open_store(settings.database)
    api = connect(settings)
    with patient(min(PATIENCE, settings.hub_patience), lambda said: listener(Event(stage="hub", state="remark", message=said))):
        chosen = datasets.recipe_for(settings, wanted.recipe, api, listener)  # who watches is told of what has to be fetched
        named(way(chosen), redo)  # before anything is queued
        with told(listener, READ, why=False) if wanted.folder is not None else nullcontext():  # whoever catches a failure says why
            record, _ = queue_release(store, settings, api, wanted, again=True)
    for sentence in own_account.of_run(chosen, record):
        listener(Event(stage="publish", state="remark", message=sentence))
    worker = worker_name()
    leased = store.lease(worker, seconds=LEASE_SECONDS, run=record.id)
    if leased is None:
        raise SluiceError(f"Run {record.id} of {wanted.repo} is being carried out by another process. Follow it with `sluice status {record.id}`.")
    try:
        # a run that failed is told by its summary, with everything that was found before
        with kept_lease(store, leased, worker), suppress(SluiceError):
            execute(store, leased, settings, listener, expected, redo)
    except LeaseLost as lost:
        raise SluiceError(
            f"Another process took run {record.id} over while this one gave no sign of life, and goes on with it. Follow it with `sluice status {record.id}`."
        ) from lost
    return summary(store, record.id)
