"""From a hint to a queued run: looks at each watched repo that may have changed, and again later when the look failed."""

import structlog
from huggingface_hub import HfApi

from config.errors import HubUnavailable, SluiceError, in_words
from config.passing import pause
from config.settings import Settings, Watched
from service.logs import redact
from service.release.intake import ReleaseRequest, queue_release
from service.runs.again import ATTEMPTS
from service.store import HintRecord, Store

FIRST_DELAY = 30.0  # seconds from a failed look to the next, at most; doubles each time
LONGEST_DELAY = 3600.0  # seconds

log = structlog.get_logger(__name__)


def take_hints(store: Store, settings: Settings, api: HfApi) -> None:
    """Look at every repo that a due hint names. A look that fails is had again later."""
    for hint in store.hints(due=True):
        try:
            for watched in settings.watch:
                if watched.repo == hint.repo:
                    _look(store, settings, api, watched, hint)
        except Exception as error:
            expected = isinstance(error, SluiceError)
            delay = pause(hint.attempts, first=FIRST_DELAY, longest=LONGEST_DELAY, asked=error.wait if isinstance(error, HubUnavailable) else None)
            log.warning("look failed", repo=hint.repo, error=str(error), next_in_seconds=delay, exc_info=not expected)
            store.defer_hint(hint, error=redact(in_words(error)), seconds=delay)
        else:
            store.settle_hint(hint)


def _look(store: Store, settings: Settings, api: HfApi, watched: Watched, hint: HintRecord) -> None:
    wanted = ReleaseRequest(repo=watched.repo, revision=watched.revision, recipe=watched.recipe, trigger=hint.source)
    run, queued = queue_release(store, settings, api, wanted, attempts=ATTEMPTS)
    if queued:
        log.info("run queued", run=run.id, repo=run.release.repo, sha=run.release.sha, trigger=hint.source)
