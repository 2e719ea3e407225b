"""The collection of a release's repos: made when they are published, and where that does not work made later, by whichever service comes to it."""

import logging
from collections.abc import Sequence
from typing import Any

from huggingface_hub import HfApi

from config.errors import HubError, HubUnavailable
from config.passing import pause
from publishers import hub
from service.hubclient import within
from service.logs import redact
from service.release.work import Work
from service.store import Store

KIND = "collection"
SECONDS = 300.0  # that the calls for one collection may take together: they are few, and the run, or whatever else is to be done later, waits for them
FIRST = 60.0  # seconds to the second try, at most; doubled each time up to a day

log = logging.getLogger(__name__)


def gather(work: Work, repos: Sequence[str], *, private: bool) -> None:
    """Put the repos of a run into its collection, now or later: what is published is done, however long the Hub takes over this."""
    run = work.job.run
    details = {"title": run.release.name, "namespace": run.namespace, "private": private, "repos": list(repos)}
    _try(work.job.store, work.api, run.id, details, attempts=0)


def take_up(store: Store, api: HfApi) -> bool:
    """Try again whatever is due of what could not be done before, one thing; whether there was any."""
    if (item := store.take_follow_up(KIND)) is None:
        return False
    _try(store, api, item.run, item.details, attempts=item.attempts)
    return True


def _late() -> HubUnavailable:
    return HubUnavailable(f"The Hub took longer than {SECONDS:.0f} seconds over it.")


def _try(store: Store, api: HfApi, run: int, details: dict[str, Any], *, attempts: int) -> None:
    try:
        with within(SECONDS, _late):
            hub.collection(api, details["title"], details["namespace"], details["private"], details["repos"])
    except HubError as error:
        seconds = pause(attempts, first=FIRST, asked=error.wait if isinstance(error, HubUnavailable) else None)
        log.warning("no collection for run %d, tried again in %.0f s: %s", run, seconds, error, extra={"action": "gather"})
        store.put_follow_up(run, KIND, details, error=redact(str(error)), seconds=seconds, source=KIND)
    else:
        store.settle_follow_up(run, KIND, source=KIND)
