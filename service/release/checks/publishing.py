"""Checks: there is a token that may publish, and every repo to publish to will take what is published. Nothing is written to the Hub."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from config.errors import PublishConflict
from publishers import hub
from publishers.account import publishing_namespace
from service.release.checks.problem import Remark
from service.release.graph import Check
from service.release.paths import may_publish
from service.runs.own_account import left_out, to_be_offered

if TYPE_CHECKING:
    from service.release.prospect import Prospect


def unable(prospect: "Prospect") -> Iterable[str]:
    """Raise HubError that says why the token cannot publish."""
    publishing_namespace(prospect.api, prospect.namespace or prospect.settings.namespace)
    return ()


def taken(prospect: "Prospect") -> Iterable[str]:
    """What is not published because its repo is the upstream itself, and whether the fixes are offered there.

    Raises PublishConflict that says what is wrong with the repos to publish to, and ConfigurationError when the Hub would not accept a name.
    """
    if not prospect.namespace:
        return  # the check of the token says why
    if told := [sentence for repo in prospect.targets if (sentence := _fault(prospect, repo))]:
        raise PublishConflict(" ".join(told))
    release = prospect.upstream.release
    if not prospect.targets and not prospect.offers:
        raise PublishConflict(
            f"{release.repo} is the upstream itself, and nothing may be published over it, so that nothing would be published at all. "
            "Set `namespace` in the settings to another account, add variants to the recipe, or offer the fixes by `--fixes-as-pr`."
        )
    if prospect.own and prospect.recipe.variants.sixteen_bit:
        yield Remark(left_out(release, offered=prospect.offers))
    elif prospect.offers:
        yield Remark(to_be_offered(release))


def _fault(prospect: "Prospect", repo: str) -> str | None:
    """Why a repo will not take what is published."""
    upstream, private = prospect.upstream.release.repo, prospect.settings.private or prospect.upstream.private
    try:
        hub.check_target(
            prospect.api,
            repo,
            upstream=upstream,
            private=private,
            previously=prospect.published(repo),
            planned=may_publish(prospect.targets[repo], prospect.upstream.release.name, prospect.sizes),
        )
    except PublishConflict as error:
        return str(error)
    return None


TOKEN = Check(name="publishing token", look=unable)
TARGETS = Check(name="target repos", look=taken)
