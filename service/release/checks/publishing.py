"""Checks: there is a token that may publish, and every repo or folder will take what is published. Nothing is written."""

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from config.errors import PublishConflict, StageError
from publishers import folder, hub
from publishers.account import publishing_namespace
from service.machine.folders import existing
from service.release.checks.problem import Remark
from service.release.costs.sizes import weight
from service.release.graph import Check
from service.release.paths import may_publish
from service.runs.own_account import beforehand

if TYPE_CHECKING:
    from service.release.prospect import Prospect

SURE = 0.8  # of an estimate of sizes: what they will surely come to


def unable(prospect: "Prospect") -> Iterable[str]:
    """Raise HubError that says why the token cannot publish."""
    if prospect.target is None:
        publishing_namespace(prospect.api, prospect.namespace or prospect.settings.namespace)
    return ()


def taken(prospect: "Prospect") -> Iterable[str]:
    """What is not published because its repo is the upstream itself, and whether the fixes are offered there.

    Raises PublishConflict that says what is wrong with the repos to publish to, and ConfigurationError when the Hub would not accept a name.
    """
    if not prospect.namespace:
        return  # the check of the token says why
    if prospect.target is not None:
        yield from _unfit(prospect, Path(prospect.target))
        return
    if told := [sentence for repo in prospect.targets if (sentence := _fault(prospect, repo))]:
        raise PublishConflict(" ".join(told))
    release = prospect.upstream.release
    if not prospect.targets and not prospect.offers:
        raise PublishConflict(
            f"{release.repo} is the upstream itself, and nothing may be published over it, so that nothing would be published at all. "
            "Set `namespace` in the settings to another account, add variants to the recipe, or offer the fixes by `--fixes-as-pr`."
        )
    yield from map(Remark, beforehand(prospect.recipe, release, own=prospect.own, offers=prospect.offers))


def _fault(prospect: "Prospect", repo: str) -> str | None:
    """Why a repo will not take what is published."""
    private = prospect.settings.private or prospect.upstream.private
    try:
        hub.check_target(
            prospect.api,
            repo,
            upstream=prospect.upstream.release.origin,
            private=private,
            previously=prospect.published(repo),
            planned=may_publish(prospect.targets[repo], prospect.upstream.release.name, prospect.sizes),
        )
    except PublishConflict as error:
        return str(error)
    return None


def _unfit(prospect: "Prospect", target: Path) -> Iterator[str]:
    """Why a folder will not take what is to be left there."""
    for repo in prospect.targets:
        try:
            folder.check_target(target, repo, upstream=prospect.upstream.release.origin)
        except (PublishConflict, StageError) as error:
            yield str(error)
    wanted, free = sum(weight(prospect, variant) for variant in prospect.recipe.variants.listed()), shutil.disk_usage(existing(target)).free
    if SURE * wanted > free:
        yield (
            f"What is to be left in {target} will have about {wanted / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free there: the disk is too small. "
            "Free some space, name a folder on a larger disk, or build fewer variants."
        )


TOKEN = Check(name="publishing token", stage="publish", look=unable)
TARGETS = Check(name="target repos", stage="publish", look=taken)
CHECKS = (TOKEN, TARGETS)
