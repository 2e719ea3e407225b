"""What a run will be held for, as far as files at hand tell it beforehand: those of a folder, and those of a repo that were fetched already."""

from collections.abc import Iterator
from pathlib import Path

from config.errors import SluiceError
from config.words import Hold
from service.execution.kept import Output
from service.release import ruled
from service.release.outlook import looking
from service.release.prospect import Prospect
from service.release.reuse import kept
from service.release.way import way
from service.store import Store


def held(store: Store, ahead: Prospect) -> Iterator[str]:
    """A sentence for each thing that a person has to decide and has not, and why a system prompt cannot be removed; nothing where the files are elsewhere or
    cannot be read, which the run says then.
    """
    removes = ahead.recipe.system_prompt == "remove"
    if (ahead.recipe.fixes is not True and not removes) or ahead.upstream.adapter:
        return
    work, job = looking(store, ahead, way(ahead.recipe))
    kept(work, job)
    snapshot = work.products.get("snapshot")
    elsewhere = ahead.folder is None or ahead.upstream.gguf  # what a GGUF file gives is not there before it is rebuilt
    there = snapshot.folder / "files" if isinstance(snapshot, Output) else None if elsewhere else Path(str(ahead.folder))
    if there is None:
        return
    try:
        for hold in ruled.held(ahead.settings, there, ahead.upstream.release.repo, ahead.recipe):
            if hold.digest not in job.approved:
                yield sentence(hold)
    except SluiceError as error:
        if removes:
            yield str(error)


def sentence(hold: Hold) -> str:
    """What is said of a hold to come."""
    return f"The release will be held for {hold.subject} until a person approves it (`sluice approve`): {hold.reason}"
