"""Published copies in use: before main has a publication, a variant of it is downloaded from the branch beside main and asked what the measured file was."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from builders import asking
from config.errors import HubError, HubUnavailable, MeasurementError, SluiceError, ToolError
from service.execution.kept import Input, Output
from service.release.kinds import kind_of
from service.release.products import JUDGED, Built, Judged
from service.release.work import Work

TOKENS = 32  # of the answer, at most: what does not work shows in the first ones
SHOWN = 80  # characters of an answer that an error quotes
FUNCTION = "qa.read_back:answer"


def read_back(work: Work, repo: str, variants: Collection[Built], staged: str, sent: Collection[str]) -> None:
    """Use what lies at the commit `staged` of the repo, of these variants those that the recipe wants, unless main held all their bytes before.

    `sent` are the files that the commit brings. Raises HubError when a copy does not do what the measured files did.
    """
    wanted = work.recipe.read_back
    if wanted == "none" or not variants:
        return
    fresh = sorted((item for item in variants if any(file.path in sent for file in item.output.files)), key=lambda item: (item.bytes, item.variant.tag))
    if not fresh:
        with work.job.noted(f"read back {repo}", staged) as noted:
            noted.state, noted.message = "reused", "no variant's bytes are new: they are those of the publication before"
        return
    for item in fresh if wanted == "all" else fresh[:1]:
        _used(work, repo, item, staged)


def _used(work: Work, repo: str, item: Built, staged: str) -> None:
    tag, engine, settings = item.variant.tag, kind_of(item.variant).engine, work.job.settings
    generation = work.recipe.evaluation.generation
    asked: dict[str, Any] = {"question": generation.prompts[0], "max_tokens": min(TOKENS, generation.max_tokens), "threads": settings.threads}
    original = engine.model(next(built.output for built in work.of(JUDGED, Judged).built if built.variant == item.variant))
    said = work.job.apart(f"answer {tag}", FUNCTION, {"model": original}, threaded=False, **asked).result["answer"]
    with work.job.noted(f"read back {tag}", staged) as noted, work.job.stages.workspace(staged) as workspace:
        copy = _copied(work, repo, item.output, staged, workspace / "copy")
        model = copy / item.output.result["file"] if original.path.is_file() else copy
        where = f"{model.name if original.path.is_file() else tag}, downloaded from {repo} as it would be published,"
        try:
            result = work.job.tried(f"read back {tag}", FUNCTION, workspace, {"model": Input(path=model, digest=staged)}, **asked)
        except (MeasurementError, ToolError) as error:
            raise HubError(f"{where} cannot be used: {error} Nothing was published. {_advice(repo)}") from error
        if result["answer"] != said:
            answers = f"answers {_quoted(result['answer'])}, and the file that was measured {_quoted(said)}"
            raise HubError(f"{where} {answers}. Nothing was published. {_advice(repo)}")
        noted.message = f"{item.bytes / 1e6:,.1f} MB downloaded; the copy answers as the measured file does"


def _copied(work: Work, repo: str, output: Output, staged: str, folder: Path) -> Path:
    """The variant's files at that commit, in a folder of their own. Raises HubError, and HubUnavailable where it is for the moment."""
    folder.mkdir()
    sizes = {file.path: file.bytes for file in output.files}
    total = sum(sizes.values())
    try:
        asking.require_room(folder, total, f"What is read back of {repo} before it is published needs {total / 1e6:.0f} MB")
        asking.download(folder, api=work.api, repo=repo, revision=staged, sizes=sizes)
    except HubUnavailable:
        raise
    except SluiceError as error:
        raise HubError(f"{error} Nothing was published.") from error
    for file in output.files:
        asking.verified(folder / file.path, f"{file.path} of {repo}", size=file.bytes, sha256=file.sha256)
    return folder


def _advice(repo: str) -> str:
    return f"Look whether this machine answers alike twice (its memory, its GPU), then run it again; `read_back: none` in the recipe publishes {repo} unread."


def _quoted(text: str) -> str:
    return repr(f"{text[:SHOWN]}…" if len(text) > SHOWN else text)
