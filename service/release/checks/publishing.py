"""Checks: there is a token that may publish, and every repo or folder will take what is published. Nothing is written."""

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from config.errors import PublishConflict, StageError, Superseded
from publishers import folder, hub
from publishers.account import publishing_namespace
from publishers.order import Line
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
    line = Line(prospect.api, prospect.upstream.release.origin)
    if faults := [fault for repo in prospect.targets if (fault := _fault(prospect, repo, line))]:
        kind = Superseded if all(isinstance(fault, Superseded) for fault in faults) else PublishConflict
        raise kind(" ".join(str(fault) for fault in faults))
    release = prospect.upstream.release
    if not prospect.targets and not prospect.offers:
        raise PublishConflict(
            f"{release.repo} is the upstream itself, and nothing may be published over it, so that nothing would be published at all. "
            "Set `namespace` in the settings to another account, add variants to the recipe, or offer the fixes by `--fixes-as-pr`."
        )
    yield from map(Remark, beforehand(prospect.recipe, release, own=prospect.own, offers=prospect.offers))


def _wanted(prospect: "Prospect", repo: str) -> hub.Prospective:
    """What is to be published in a repo, as far as it is known beforehand."""
    return hub.Prospective(
        upstream=prospect.upstream.release.origin,
        sha=prospect.upstream.release.sha,
        private=prospect.settings.private or prospect.upstream.private,
        previously=prospect.published(repo),
        rollback=prospect.rollback,
        planned=may_publish(prospect.targets[repo], prospect.upstream.release.name, prospect.sizes),
    )


def _fault(prospect: "Prospect", repo: str, line: Line) -> PublishConflict | None:
    """Why a repo will not take what is published."""
    try:
        hub.check_target(prospect.api, repo, _wanted(prospect, repo), line=line)
    except PublishConflict as error:
        return error
    return None


def _unfit(prospect: "Prospect", target: Path) -> Iterator[str]:
    """Why a folder will not take what is to be left there."""
    line = Line(prospect.api, prospect.upstream.release.origin)
    for repo in prospect.targets:
        try:
            folder.check_target(target, repo, _wanted(prospect, repo), line)
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
