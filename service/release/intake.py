"""From a request to a queued run: ask the Hub for the commit, look for whatever would make the run fail, put it into the queue once."""

import logging
from dataclasses import dataclass

from huggingface_hub import HfApi

from builders import snapshot
from config.errors import SluiceError
from config.settings import Settings
from service.release import checks, datasets, prospect
from service.release.route import Route
from service.release.way import way
from service.store import RunOrder, RunRecord, Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ReleaseRequest:
    """What somebody wants to be released."""

    repo: str  # "owner/name"; of a folder the name to publish under
    revision: str  # branch, tag or commit
    recipe: str  # name, or path of a YAML file
    trigger: str  # who wants it: "command", "api", "poll", "webhook"
    folder: str | None = None  # that the release is taken from, called `repo`; None: the Hub
    target: str | None = None  # the folder that repos are left in; None: the Hub
    changed_only: bool = False  # not when the newest run of the repo is of the same files: a new README makes no new release

    def route(self, api: HfApi) -> Route:
        """Where the release comes from and goes to."""
        return Route(api=api, folder=self.folder, target=self.target)


def queue_release(
    store: Store, settings: Settings, api: HfApi, wanted: ReleaseRequest, *, again: bool = False, attempts: int | None = None
) -> tuple[RunRecord, bool]:
    """The run of the commit that the wanted revision names now, and whether it was put into the queue; `again` and `attempts` as in `Store.enqueue`.

    A run that is new or failed before is queued only when every check of its stages finds nothing wrong. Raises UpstreamError when the release cannot be
    used, HubError when the Hub cannot be asked, ConfigurationError when the recipe is wrong, PublishConflict when a target repo is somebody else's.
    """
    recipe, route = datasets.recipe_for(settings, wanted.recipe, api), wanted.route(api)
    upstream = route.resolve(wanted.repo, wanted.revision)

    def refuse_wrong() -> None:
        checks.refuse(checks.problems(way(recipe), prospect.foresee(store, settings, route, recipe, upstream)))

    try:
        namespace = route.namespace(settings.namespace)
    except SluiceError:
        refuse_wrong()  # tells this with everything else that is wrong
        raise
    order = RunOrder(
        release=upstream.release,
        recipe=wanted.recipe,
        recipe_digest=recipe.digest(),
        namespace=namespace,
        trigger=wanted.trigger,
        private=settings.private or upstream.private,
        fixes_as_pr=route.offers(settings, namespace, upstream),
        folder=wanted.folder,
        target=wanted.target,
        quick=recipe.quick,
    )
    before = store.ordered(order)
    if before is None and wanted.changed_only and (same := _unchanged(store, api, order)) is not None:
        return same, False
    if before is None or (before.state == "failed" and (attempts is None or before.attempt < attempts)):
        refuse_wrong()
    return store.enqueue(order, again=again, attempts=attempts)


def _unchanged(store: Store, api: HfApi, order: RunOrder) -> RunRecord | None:
    """The newest run of the same repo and recipe, unless it failed or its release consists of other files; None as well where the Hub cannot compare them."""
    last = store.newest(order)
    if last is None or last.state == "failed":
        return None
    try:
        before, now = (snapshot.contents(api, release) for release in (last.release, order.release))
    except SluiceError:  # its history may have been rewritten
        return None
    if before != now:
        return None
    log.info("nothing of %s changed between %s and %s but what no release consists of", order.release.repo, last.release.sha, order.release.sha)
    return last
