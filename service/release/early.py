"""Every check of a recipe on a release, before a run of it is queued or planned: the stages' own checks once there is a graph, and until then these."""

from huggingface_hub import HfApi

from builders.snapshot import Upstream
from config.errors import SluiceError
from config.recipe import Recipe
from config.settings import Settings
from publishers.account import publishing_namespace
from service.release import checks
from service.release.checks import architecture, budgets, data, gates, names, publishing, terms
from service.release.graph import Graph, Phase, Stage
from service.release.prospect import look
from service.store import Store

_CHECKS = (
    gates.check(names.of_recipe), data.CHECK, publishing.TOKEN, publishing.TARGETS, terms.CHECK, architecture.CHECK, budgets.CHECK,
)  # fmt: skip
_GRAPH = Graph(stages=(Stage(name="run", phase=Phase.EXAMINE, does="release a model", work=lambda work: None, checks=_CHECKS),))


def refuse_wrong(store: Store, settings: Settings, api: HfApi, recipe: Recipe, upstream: Upstream) -> tuple[checks.Problem, ...]:
    """Raise what `checks.refuse` does; returns the remarks."""
    try:
        namespace = publishing_namespace(api, settings.namespace)
    except SluiceError:
        namespace = ""  # told by the check of the token

    def published(repo: str) -> str | None:
        last = store.last_publication(repo)
        return None if last is None else last.revision

    found = checks.problems(_GRAPH, look(settings, api, recipe, upstream, namespace, published))
    checks.refuse(found)
    return found
