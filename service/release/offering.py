"""From fixes to a pull request: which files of the upstream were changed, what is said about them, and where that was offered."""

from collections.abc import Sequence

from builders.names import INDEX
from config.errors import HubError
from config.words import Patch
from publishers import markdown, pull_request, readme, shown
from publishers.hub import PublishFile
from publishers.pull_request import Proposal
from service.release.kinds import kind_of
from service.release.products import JUDGED, Judged, from_stage
from service.release.stages.examine import patches
from service.release.work import Work
from service.store import PullRequestRecord

NAMED = 3  # files that the title names


def offer(work: Work) -> HubError | None:
    """Offer the upstream the files that fixes changed, if the run is to and they passed their gates; what prevented it, to be raised when all else is done."""
    job = work.job
    if not job.run.fixes_as_pr or not passed(work.of(JUDGED, Judged)) or not (files := changed(work)):
        return None
    proposal = proposed(work, files)
    try:
        with job.noted("pull request", proposal.digest) as noted:
            found = pull_request.offer(work.api, proposal)
            if found is None or found.state != "opened":
                noted.state, noted.message = "reused", "the upstream holds these files" if found is None else f"{found.url} is {found.state}"
            else:
                noted.message = found.url
    except HubError as error:
        return error
    if found is not None:
        names = tuple(file.path for file in files)
        kept = PullRequestRecord(repo=work.release.repo, number=found.number, url=found.url, state=found.state, files=names)
        job.store.record_pull_request(job.run.id, kept, source=job.run.trigger)
    return None


def passed(judged: Judged) -> bool:
    """Whether the fixed model may be given to others: its own verdict, or where the recipe has none of it, that of anything made from it."""
    own = [item for item in judged.built if not kind_of(item.variant).form.quantized]
    return any(item.passed for item in own or judged.built)


def changed(work: Work) -> tuple[PublishFile, ...]:
    """The configuration files of the release that are other ones after the fixes, or new. Weights that were written anew stay behind with their index."""
    before, fixed = {file.path: file.sha256 for file in work.output("snapshot").files}, work.output("fix")
    other = [file for file in fixed.files if before.get(file.path) != file.sha256]
    weights = {file.path for file in other if file.path.endswith(".safetensors")}
    return tuple(from_stage(fixed, file) for file in other if file.path not in weights and not (weights and file.path == INDEX))


def proposed(work: Work, files: Sequence[PublishFile]) -> Proposal:
    """The pull request: one commit on the released one, with the reasons of the patches."""
    names = [file.path for file in files]
    title = f"Repair {shown.listed(names)}" if len(names) <= NAMED else f"Repair {len(names)} files"
    said = [
        f"Sluice released {work.release.repo} at {work.release.sha[:12]} and had to change these files. The weights are not touched.",
        "\n".join(_reasons(patches(work))),
        f"Quantized variants of this release were made and measured with these changes (recipe {work.recipe.name}).",
    ]
    return Proposal(repo=work.release.repo, base=work.release.sha, files=tuple(files), title=title, text="\n\n".join(said))


def _reasons(made: Sequence[Patch]) -> list[str]:
    """A list of the fixes, each with its reason and what it changed."""
    lines = []
    for fix, changes in readme.repairs(made):
        lines.append(f"- **{markdown.text(fix.fix)}**: {markdown.text(fix.reason)}")
        for patch, before, after in changes:
            lines.append(f"  - {markdown.code(patch.file)}, {markdown.code(patch.key)}: {before} → {after}")
    return lines
