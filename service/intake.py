"""From a hint or a request to a queued run: ask the Hub for the commit, read the recipe, put the run into the queue once."""

import structlog
from huggingface_hub import HfApi

from builders import snapshot
from config.errors import SluiceError, in_words
from config.recipe import load_recipe
from config.settings import Settings, Watched
from publishers.account import publishing_namespace
from service.logs import redact
from service.store import HintRecord, RunRecord, Store

ATTEMPTS = 3  # times that a run is tried when nobody asks for it but hints
FIRST_DELAY = 30.0  # seconds from a failed look to the next; doubles each time
LONGEST_DELAY = 3600.0  # seconds

log = structlog.get_logger(__name__)


def queue_release(
    store: Store, settings: Settings, api: HfApi, *, repo: str, revision: str, recipe: str, trigger: str, again: bool = False, attempts: int | None = None
) -> tuple[RunRecord, bool]:
    """The run of `repo` at the commit that `revision` names now, and whether it was put into the queue; `again` and `attempts` as in `Store.enqueue`.

    Raises UpstreamError when the release cannot be used, HubError when the Hub cannot be asked, ConfigurationError when the recipe is wrong.
    """
    digest = load_recipe(recipe).digest()
    upstream = snapshot.resolve(api, repo, revision)
    return store.enqueue(
        release=upstream.release,
        recipe=recipe,
        recipe_digest=digest,
        namespace=publishing_namespace(api, settings.namespace),
        trigger=trigger,
        private=settings.private or upstream.private,
        again=again,
        attempts=attempts,
    )


def take_hints(store: Store, settings: Settings, api: HfApi) -> None:
    """Look at every repo that a due hint names. A look that fails is had again later."""
    for hint in store.hints(due=True):
        try:
            for watched in settings.watch:
                if watched.repo == hint.repo:
                    _look(store, settings, api, watched, hint)
        except Exception as error:
            expected = isinstance(error, SluiceError)
            delay = min(FIRST_DELAY * 2 ** min(hint.attempts, 20), LONGEST_DELAY)
            log.warning("look failed", repo=hint.repo, error=str(error), next_in_seconds=delay, exc_info=not expected)
            store.defer_hint(hint, error=redact(in_words(error)), seconds=delay)
        else:
            store.settle_hint(hint)


def _look(store: Store, settings: Settings, api: HfApi, watched: Watched, hint: HintRecord) -> None:
    run, queued = queue_release(
        store, settings, api, repo=watched.repo, revision=watched.revision, recipe=watched.recipe, trigger=hint.source, attempts=ATTEMPTS
    )
    if queued:
        log.info("run queued", run=run.id, repo=run.release.repo, sha=run.release.sha, trigger=hint.source)
