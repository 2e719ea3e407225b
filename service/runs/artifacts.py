"""A file that a stage of a run made, found again by its digest."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from config.errors import SluiceError
from config.settings import Settings
from service.execution.kept import StageStore
from service.store import Store


class NoArtifact(SluiceError):
    """No stage of the run made such a file."""


class ArtifactGone(SluiceError):
    """The file is not kept any more, or not on this machine."""


@dataclass(frozen=True, kw_only=True)
class KeptFile:
    """A file that is there."""

    path: Path
    name: str  # without folders


def find(store: Store, settings: Settings, run: int, sha256: str) -> KeptFile:
    """The file of that digest, which a stage of the run made and which is as it was then. Raises UnknownRun, NoArtifact, ArtifactGone."""
    store.run(run)
    made = [(stage, item.name) for stage in store.stages(run) for item in stage.artifacts if item.sha256 == sha256]
    if not made:
        raise NoArtifact(f"No stage of run {run} made a file with the sha256 {sha256}. `artifacts` of the run lists those that were made.")
    stages = StageStore(settings.folder, reading=True)
    for stage, name in made:
        if (kept := stages.look_up(stage.key)) is not None and any((file.path, file.sha256) == (name, sha256) for file in kept.files):
            return KeptFile(path=kept.file(name).path, name=Path(name).name)
    stage, name = made[0]
    raise ArtifactGone(
        f"{Path(name).name}, which stage {stage.name} of run {run} made, is not kept on the service's machine any more. "
        f"`sluice redo {run} {shlex.quote(stage.name)}` makes it again."
    )
