"""Checks: there is a token that may publish, and every repo to publish to will take what is published. Nothing is written to the Hub."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from config.errors import PublishConflict
from config.words import Kind, Variant
from publishers import hub
from publishers.account import publishing_namespace
from service.release.graph import Check

if TYPE_CHECKING:
    from service.release.prospect import Prospect


def unable(prospect: "Prospect") -> Iterable[str]:
    """Raise HubError that says why the token cannot publish."""
    publishing_namespace(prospect.api, prospect.namespace or prospect.settings.namespace)
    return ()


def taken(prospect: "Prospect") -> Iterable[str]:
    """Raise PublishConflict that says what is wrong with the repos to publish to, and ConfigurationError when the Hub would not accept a name."""
    if not prospect.namespace:
        return ()  # the check of the token says why
    if told := [sentence for repo, variants in prospect.targets.items() if (sentence := _fault(prospect, repo, variants))]:
        raise PublishConflict(" ".join(told))
    return ()


def _fault(prospect: "Prospect", repo: str, variants: Iterable[Variant]) -> str | None:
    """Why a repo will not take what is published."""
    upstream, private = prospect.upstream.release.repo, prospect.settings.private or prospect.upstream.private
    if repo.lower() == upstream.lower():
        instead = ", or set `sixteen_bit: false` in the recipe" if any(variant.kind == Kind.SIXTEEN_BIT for variant in variants) else ""
        return f"{repo} is the upstream itself, and nothing may be published over it. Set `namespace` in the settings to another account{instead}."
    try:
        hub.check_target(prospect.api, repo, upstream=upstream, private=private, previously=prospect.published(repo))
    except PublishConflict as error:
        return str(error)
    return None


TOKEN = Check(name="publishing token", look=unable)
TARGETS = Check(name="target repos", look=taken)
