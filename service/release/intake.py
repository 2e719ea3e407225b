"""From a request to a queued run: ask the Hub for the commit, read the recipe, put the run into the queue once."""

from huggingface_hub import HfApi

from builders import snapshot
from config.recipe import load_recipe
from config.settings import Settings
from publishers.account import publishing_namespace
from service.store import RunOrder, RunRecord, Store


def queue_release(
    store: Store, settings: Settings, api: HfApi, *, repo: str, revision: str, recipe: str, trigger: str, again: bool = False, attempts: int | None = None
) -> tuple[RunRecord, bool]:
    """The run of `repo` at the commit that `revision` names now, and whether it was put into the queue; `again` and `attempts` as in `Store.enqueue`.

    Raises UpstreamError when the release cannot be used, HubError when the Hub cannot be asked, ConfigurationError when the recipe is wrong.
    """
    digest = load_recipe(recipe).digest()
    upstream = snapshot.resolve(api, repo, revision)
    order = RunOrder(
        release=upstream.release,
        recipe=recipe,
        recipe_digest=digest,
        namespace=publishing_namespace(api, settings.namespace),
        trigger=trigger,
        private=settings.private or upstream.private,
    )
    return store.enqueue(order, again=again, attempts=attempts)
