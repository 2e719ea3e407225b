"""From a request to a queued run: ask the Hub for the commit, look for whatever would make the run fail, put it into the queue once."""

from dataclasses import dataclass

from huggingface_hub import HfApi

from config.errors import SluiceError
from config.settings import Settings
from service.release import checks, datasets, prospect
from service.release.route import Route
from service.release.way import way
from service.store import RunOrder, RunRecord, Store


@dataclass(frozen=True, kw_only=True)
class ReleaseRequest:
    """What somebody wants to be released."""

    repo: str  # "owner/name"; of a folder the name to publish under
    revision: str  # branch, tag or commit
    recipe: str  # name, or path of a YAML file
    trigger: str  # who wants it: "command", "api", "poll", "webhook"
    folder: str | None = None  # that the release is taken from, called `repo`; None: the Hub
    target: str | None = None  # the folder that repos are left in; None: the Hub

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
    if before is None or (before.state == "failed" and (attempts is None or before.attempt < attempts)):
        refuse_wrong()
    return store.enqueue(order, again=again, attempts=attempts)
