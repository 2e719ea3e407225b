"""What the rules make of a model's small files and the headers of its weights; nothing is kept: for `sluice fix`, and for what a dry run foresees."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from builders import folder as folders
from builders.front_matter import CARD
from config.recipe import Recipe
from config.rules import SystemPrompt
from config.settings import Settings
from config.words import Hold
from service.execution.kept import Input
from service.execution.process import Limits, run_apart

_HOLDS = TypeAdapter(list[Hold])


@contextmanager
def places() -> Iterator[tuple[Path, Path]]:
    """A folder for what rules read, and a workspace for the repair, both empty, and gone after the block."""
    with tempfile.TemporaryDirectory(prefix="sluice-fix-") as made:
        before, work = Path(made) / "before", Path(made) / "work"
        before.mkdir()
        for part in ("files", "tmp"):
            (work / part).mkdir(parents=True)
        yield before, work


def taken(folder: Path, into: Path) -> None:
    """What rules look at of a model's folder, see `folder.laid`. Raises UpstreamError when it is no whole model."""
    folders.laid(folder, into, [name for name in folders.loaded(folder) if name != CARD])


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What a recipe says of repairs, whether what a person has to decide is to be asked, and whether matrices are looked at; see `fixes.repair`."""

    fixes: bool = True
    system_prompt: SystemPrompt = "keep"
    ask: bool = False
    matrices: bool = True


def repaired(settings: Settings, before: Path, work: Path, repo: str, choices: Choices) -> dict[str, Any]:
    """The repair in a process of its own: templates are programs, and tokenizers are a stranger's."""
    params = {"repo": repo, "headers": True, **asdict(choices)}
    return _apart(settings, "builders.fixes:repair", work, {"snapshot": before}, params, mapped=_mapped(before) if choices.matrices else 0)


def require_all(settings: Settings, before: Path, after: Path) -> None:
    """Raise UpstreamError when the weights of the folder `before` lack some that the model has of which `after` holds the configuration, UnsupportedModel when
    transformers cannot run such a model.
    """
    with places() as (_, work):
        _apart(settings, "builders.lacking:check", work, {"model": after, "weights": before}, {}, mapped=_mapped(before))


def _mapped(folder: Path) -> int:
    """Bytes of its weight files, each opened twice: transformers opens one for its metadata and again for its tensors."""
    return 2 * sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _apart(settings: Settings, function: str, work: Path, given: Mapping[str, Path], params: Mapping[str, Any], *, mapped: int = 0) -> dict[str, Any]:
    """The result of a stage function of which nothing is kept but its log; `mapped` bytes of files that it maps and never reads come on top of its memory."""
    memory = None if settings.memory_gib is None else int(settings.memory_gib * 2**30) + mapped
    limits = Limits(seconds=settings.stage_minutes * 60, memory_bytes=memory, threads=settings.threads)  # as a run's stages, which the same program starts
    inputs = {name: Input(path=folder, digest="") for name, folder in given.items()}  # a digest is part of a stage's key
    return run_apart(function, work, inputs, params, limits=limits, log=settings.folder / "logs" / "fix" / f"{function.rpartition(':')[2]}.log")


def held(settings: Settings, folder: Path, repo: str, recipe: Recipe) -> list[Hold]:
    """What the rules would change of a model's folder and a person has to decide first, as far as its headers tell. Raises UpstreamError, StageError."""
    choices = Choices(fixes=bool(recipe.fixes), system_prompt=recipe.system_prompt, ask=recipe.fixes is True)
    with places() as (before, work):
        taken(folder, before)
        return _HOLDS.validate_python(repaired(settings, before, work, repo, choices)["held"])
