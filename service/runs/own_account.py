"""Releases of one's own repo under one's own account: what is not published for that, and where the fixes are offered instead, in words."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from config.data import as_written
from config.errors import ConfigurationError
from config.recipe import Recipe
from config.settings import Settings
from config.words import Kind, Outcome, Release
from config.written import Written, read_recipe
from publishers.naming import same_repo
from service.store import KeptRecipe, PullRequestRecord, RunRecord, VariantRecord

_STATES = {
    "opened": "The fixes are offered to {repo} as a pull request, which waits for its owner: {url}",
    "open": "The fixes are offered to {repo} as a pull request, which was there already: {url}",
    "merged": "The fixes were offered to {repo} as a pull request, which its owner merged: {url}",
    "closed": "The fixes were offered to {repo} as a pull request, which was closed, so it is not opened again: {url}",
}


def is_own(namespace: str, release: Release) -> bool:
    """Whether the 16-bit model would be published in the upstream repo itself."""
    return same_repo(f"{namespace}/{release.name}", release.repo)


def wants_pull_request(settings: Settings, namespace: str, release: Release) -> bool:
    """Whether the settings ask that the fixes be offered to this upstream."""
    return settings.fixes_as_pr == "always" or (settings.fixes_as_pr == "own" and is_own(namespace, release))


def left_out(release: Release, *, offered: bool) -> str:
    """That the 16-bit model is not published there."""
    instead = "Its fixes are offered there as a pull request." if offered else "`--fixes-as-pr` offers its fixes there as a pull request."
    return f"The 16-bit model is not published: {release.repo} is the upstream itself. Everything else is measured against it all the same. {instead}"


def _to_be_offered(release: Release) -> str:
    """That the fixes are offered to the upstream, whose 16-bit model is published elsewhere."""
    return f"The fixes, if any are needed, are offered to {release.repo} as a pull request."


def beforehand(recipe: Recipe, release: Release, *, own: bool, offers: bool) -> list[str]:
    """What is said before a run begins: whether the upstream is one's `own`, and whether the fixes are offered to it."""
    if recipe.variants.sixteen_bit and own:
        return [left_out(release, offered=offers)]
    return [_to_be_offered(release)] if offers else []


def of_run(recipe: Recipe, run: RunRecord) -> list[str]:
    """The same of a run that is queued."""
    return beforehand(recipe, run.release, own=_own(run), offers=run.fixes_as_pr)


def _own(run: RunRecord) -> bool:
    return run.target is None and is_own(run.namespace, run.release)


def offered(request: PullRequestRecord) -> str:
    """Where the fixes are offered, and how that stands."""
    return _STATES[request.state].format(repo=request.repo, url=request.url)


def not_offered(release: Release, *, patched: bool, passed: bool) -> str:
    """Why a run that has ended made no pull request although it was asked for one."""
    if not patched:
        return f"There was nothing to fix in {release.repo}, so no pull request was opened."
    if not passed:
        return f"No pull request was opened in {release.repo}: the fixed model did not pass its gates."
    return f"No pull request was opened in {release.repo}: it holds the fixed files by now."


def remarks(run: RunRecord, kept: KeptRecipe | None, variants: Sequence[VariantRecord], request: PullRequestRecord | None, *, patched: bool) -> list[str]:
    """What a person should know of a run, with its recipe, its variants and its pull request, besides its verdicts and publications."""
    judged = [record for record in variants if record.verdict is not None]
    if not judged and run.state in {"queued", "running", "interrupted"}:
        return _foretold(run, kept)
    whole = [record for record in judged if record.variant.kind == Kind.SIXTEEN_BIT]
    said = [left_out(run.release, offered=run.fixes_as_pr)] if whole and _own(run) else []
    if request is not None:
        said.append(offered(request))
    elif run.fixes_as_pr and run.state in {"done", "blocked"}:
        passed = any(record.verdict is not None and record.verdict.outcome is Outcome.PASSED for record in whole or judged)
        said.append(not_offered(run.release, patched=patched, passed=passed))
    return said


def _foretold(run: RunRecord, kept: KeptRecipe | None) -> list[str]:
    """The same before anything is judged; nothing where the recipe cannot be read, which the run itself says better."""
    if not run.fixes_as_pr and not _own(run):
        return []
    with suppress(ConfigurationError):
        written = read_recipe(run.recipe) if kept is None else Written(content=kept.content, told=run.recipe, folder=Path.cwd())
        return of_run(written.parsed(data=False, locate=as_written), run)
    return []
