"""Checks: there is a token that may publish, and every repo to publish to will take what is published. Nothing is written to the Hub."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from config.errors import SluiceError
from config.words import Kind
from publishers import hub
from publishers.account import publishing_namespace
from service.release.graph import Check

if TYPE_CHECKING:
    from service.release.prospect import Prospect


def unable(prospect: "Prospect") -> Iterable[str]:
    """Raise HubError that says why the token cannot publish."""
    publishing_namespace(prospect.api, prospect.namespace or prospect.settings.namespace)
    return ()


def taken(prospect: "Prospect") -> Iterator[str]:
    """What is wrong with the repos to publish to. Raises ConfigurationError when the Hub would not accept a name."""
    if not prospect.namespace:
        return  # the check of the token says why
    upstream, private = prospect.upstream.release.repo, prospect.settings.private or prospect.upstream.private
    for repo, variants in prospect.targets.items():
        if repo.lower() == upstream.lower():
            kinds = {variant.kind for variant in variants}
            instead = ", or set `sixteen_bit: false` in the recipe" if Kind.SIXTEEN_BIT in kinds else ""
            yield f"{repo} is the upstream itself, and nothing may be published over it. Set `namespace` in the settings to another account{instead}."
            continue
        try:
            hub.check_target(prospect.api, repo, upstream=upstream, private=private, previously=prospect.published(repo))
        except SluiceError as error:
            yield str(error)


TOKEN = Check(name="publishing token", look=unable)
TARGETS = Check(name="target repos", look=taken)
