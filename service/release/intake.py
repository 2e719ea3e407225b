"""From a request to a queued run: ask the Hub for the commit, look for whatever would make the run fail, put it into the queue once."""

import logging
from dataclasses import dataclass, replace

from huggingface_hub import HfApi

from builders import snapshot
from config.errors import SluiceError
from config.recipe import Recipe
from config.settings import Settings
from config.words import Rollback
from publishers.order import Line, Point
from service.release import checks, prospect, recipes, rollback
from service.release.route import Route
from service.release.way import way
from service.runs.steering import refuse_unended
from service.store import RunOrder, RunRecord, Sighting, Store

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
    redo: tuple[str, ...] = ()  # stages to do anew
    followed: bool = False  # the revision is watched, so that its moving back is an event

    def route(self, api: HfApi) -> Route:
        """Where the release comes from and goes to."""
        return Route(api=api, folder=self.folder, target=self.target)


def queue_release(
    store: Store, settings: Settings, api: HfApi, wanted: ReleaseRequest, *, again: bool = False, attempts: int | None = None
) -> tuple[RunRecord, bool]:
    """The run of the commit that the wanted revision names now, and whether it was put into the queue; `again` and `attempts` as in `Store.enqueue`.

    A run that is new or failed before is queued only when every check of its stages that takes no process of its own finds nothing wrong; that of a commit
    which a watched revision came back to is queued again. Raises UpstreamError when the release cannot be used, HubError when the Hub cannot be asked,
    ConfigurationError when the recipe is wrong, PublishConflict when a target repo is somebody else's, Superseded when it holds a newer release; with stages
    to do anew RedoRefused where there is none of a name, SteeringRefused when the run has not ended.
    """
    chosen, route = recipes.choose(settings, wanted.recipe, api), wanted.route(api)
    recipe = chosen.recipe
    upstream = route.resolve(wanted.repo, wanted.revision)

    def refuse_wrong(back: Rollback | None) -> None:
        ahead = prospect.foresee(store, settings, route, recipe, upstream)
        checks.refuse(checks.problems(way(recipe), replace(ahead, rollback=back), apart=False))

    try:
        namespace = route.namespace(settings.namespace)
    except SluiceError:
        refuse_wrong(None)  # tells this with everything else that is wrong
        raise
    order = RunOrder(
        release=upstream.release,
        recipe=wanted.recipe,
        recipe_digest=chosen.kept.digest,
        namespace=namespace,
        trigger=wanted.trigger,
        private=settings.private or upstream.private,
        fixes_as_pr=route.offers(settings, namespace, upstream),
        folder=wanted.folder,
        target=wanted.target,
        quick=recipe.quick,
        redo=wanted.redo,
    )
    before = store.ordered(order)
    if wanted.redo:
        _refuse_redo(recipe, wanted, before)
    seen, back = _followed(store, api, wanted, order, known=before is not None)
    if before is None and wanted.changed_only and back is None and (same := _unchanged(store, api, order)) is not None:
        if seen is not None:
            store.sight(seen)
        return same, False
    if before is None or (before.state == "failed" and (attempts is None or before.attempt < attempts)):
        refuse_wrong(back or (before.rollback if before else None))
    store.keep_recipe(chosen.kept)  # before there is a run that needs it
    return store.enqueue(replace(order, rollback=back), again=again or back is not None or bool(wanted.redo), attempts=attempts, seen=seen)


def _refuse_redo(recipe: Recipe, wanted: ReleaseRequest, before: RunRecord | None) -> None:
    from service.release.redoing import refuse_unknown  # and all that carries runs out

    refuse_unknown(way(recipe), wanted.redo)
    if before is not None:
        refuse_unended(before)


def _followed(store: Store, api: HfApi, wanted: ReleaseRequest, order: RunOrder, *, known: bool) -> tuple[Sighting | None, Rollback | None]:
    """What the watched revision names now, if that is another commit than before, and what the release may take the place of because it moved back.

    It is kept once the look has succeeded, so one that fails finds again that the revision moved. `known` as in `rollback.moved`.
    """
    if not wanted.followed:
        return None, None
    repo = order.release.repo  # as the Hub spells it, however it was asked for
    before = store.sighting(repo, wanted.revision, wanted.recipe)
    first = Sighting(repo=repo, revision=wanted.revision, recipe=wanted.recipe, sha="", newest="", place=None)
    seen = rollback.seen(Line(api, order.release.origin), before or first, order.release)
    last = store.newest(order)
    current = last is not None and last.release.sha == order.release.sha  # nothing newer was released before it moved back
    return None if seen == before else seen, None if current else rollback.moved(before, seen, known=known)


def _unchanged(store: Store, api: HfApi, order: RunOrder) -> RunRecord | None:
    """The newest run of the same repo and recipe, unless it failed, its release consists of other files, or what is published is newer than that.

    None as well where the Hub cannot compare them, and where it has yet to go back, which it may no longer.
    """
    last, published = store.newest(order), store.published(order)
    if last is None or last.state == "failed" or (last.rollback is not None and last.state != "done"):
        return None
    try:
        before, now = (snapshot.contents(api, release) for release in (last.release, order.release))
        if before != now or (published is not None and Line(api, order.release.origin).precedes(_point(last), _point(published))):
            return None
    except SluiceError:  # its history may have been rewritten
        return None
    log.info("nothing of %s changed between %s and %s but what no release consists of", order.release.repo, last.release.sha, order.release.sha)
    return last


def _point(run: RunRecord) -> Point:
    return Point(sha=run.release.sha)
