"""Start or continue one run and carry it out in this process, holding its lease: what `sluice run` and `sluice demo` do."""

from contextlib import suppress
from typing import Any

from config.errors import SluiceError
from config.settings import Settings
from service.execution.workbench import Event, Listener
from service.hubclient import connect
from service.release import datasets
from service.release.intake import ReleaseRequest, queue_release
from service.release.lifecycle import execute
from service.runs import own_account
from service.runs.summary import summary
from service.store import open_store, worker_name
from service.store.lease import LEASE_SECONDS, kept_lease


def run(settings: Settings, repo: str, revision: str, recipe: str, listener: Listener) -> dict[str, Any]:
    """Release `repo` and return the run's summary; a run that failed at a stage is a summary too, with its error.

    Raises SluiceError when no run can be started: the repo, the recipe, the token or the database is not usable, or another process holds the run.
    """
    store = open_store(settings.database)
    wanted = ReleaseRequest(repo=repo, revision=revision, recipe=recipe, trigger="command")
    api = connect(settings)
    chosen = datasets.recipe_for(settings, recipe, api, listener)  # who watches is told of what has to be fetched
    record, _ = queue_release(store, settings, api, wanted, again=True)
    for sentence in own_account.beforehand(chosen, record):
        listener(Event(stage="publish", state="remark", message=sentence))
    worker = worker_name()
    leased = store.lease(worker, seconds=LEASE_SECONDS, run=record.id)
    if leased is None:
        raise SluiceError(f"Run {record.id} of {repo} is being carried out by another process. Follow it with `sluice status {record.id}`.")
    # a run that failed is told by its summary, with everything that was found before
    with kept_lease(store, leased, worker), suppress(SluiceError):
        execute(store, leased, settings, listener)
    return summary(store, record.id)
