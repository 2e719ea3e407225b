"""What is wrong with the recipes of a watch list: missing, unreadable, or with gates that could never be judged. Cheap enough to ask every second."""

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from config.data import as_written, on_hub
from config.errors import ConfigurationError, SluiceError
from config.recipe import Recipe
from config.settings import Settings
from config.watch import Watched
from config.written import load_recipe, recipe_path
from service.release.checks import gates
from service.release.checks.problem import Remark
from service.release.watchlist import together
from service.release.way import way
from service.store import Store

RECIPE_NAME = r"^[a-z0-9][a-z0-9_-]*$"
"""A recipe in `config/recipes/`. Paths are for the operator: over the network they would tell what files there are."""
Stamp = tuple[int, ...]
"""What changes when a file does."""


@dataclass(frozen=True, kw_only=True)
class Broken:
    """An entry of the watch list whose runs cannot be queued."""

    repo: str  # or what else the entry follows
    recipe: str  # as on the watch list
    error: str


def broken(watch: Iterable[Watched]) -> tuple[Broken, ...]:
    """The entries whose recipe cannot be used as it is now, with everything that is wrong with each."""
    return tuple(Broken(repo=item.label, recipe=item.recipe, error=error) for item in watch if (error := fault(item.recipe)) is not None)


def unreleasable(store: Store, settings: Settings) -> tuple[Broken, ...]:
    """The entries of the whole watch list whose recipe cannot be used as it is now, and those that cannot be read."""
    added = store.watch_entries()
    unread = [
        Broken(repo=f"entry {item.id} of the watch list", recipe=str(item.kept.get("recipe", "default")), error=item.error)
        for item in added
        if item.error is not None
    ]
    return (*broken(together(settings, added)), *unread)


def refuse_unusable(entry: Watched, settings: Settings) -> None:
    """Raise ConfigurationError for an entry that is to be added and whose recipe is broken, or a path that the settings' list does not have."""
    if entry.recipe not in {item.recipe for item in settings.watch} and not re.fullmatch(RECIPE_NAME, entry.recipe):
        raise ConfigurationError(f"`recipe` must be the name of a recipe, not a path: {entry.recipe}. Entries of the settings may name paths.")
    if (error := fault(entry.recipe)) is not None:
        raise ConfigurationError(error)


def fault(recipe: str) -> str | None:
    """What is wrong with the recipe of that name or path; None when nothing is.

    A sound one is read again when its file changes or its data vanish, a broken one once a second, since what it lacks may come without a change to its file.
    """
    stamp = _stamp(recipe)
    looked = _look(recipe, stamp)
    if looked.recipe is None:
        looked = _look(recipe, (*stamp, int(time.monotonic())))
    if looked.recipe is not None and (gone := next((path for path in _data(looked.recipe) if not path.exists()), None)):
        return f"{gone} does not exist; the recipe {recipe} names it, so put the data there or change the path."
    return looked.error


@dataclass(frozen=True, kw_only=True)
class _Looked:
    recipe: Recipe | None
    error: str | None


@lru_cache(maxsize=256)
def _look(recipe: str, stamp: Stamp) -> _Looked:
    """Read a recipe as it was at `stamp`."""
    try:
        found = load_recipe(recipe, locate=as_written)  # what is on the Hub is fetched when a run is queued
    except SluiceError as error:
        return _Looked(recipe=None, error=str(error))
    wrong = [sentence for sentence in gates.wrong(found, gates.measured(way(found))) if not isinstance(sentence, Remark)]
    return _Looked(recipe=found, error=" ".join(wrong) or None)


def _stamp(recipe: str) -> Stamp:
    try:
        status = recipe_path(recipe).stat()
    except OSError:
        return ()
    return (status.st_mtime_ns, status.st_size, status.st_ino)


def _data(recipe: Recipe) -> tuple[Path, ...]:
    """All files and folders of the operator that a recipe names."""
    evaluation, calibration = recipe.evaluation, recipe.calibration
    questions = () if evaluation.mmlu is None else (evaluation.mmlu.data,)
    named = (*calibration.chat, *calibration.plain, *evaluation.divergence.chat, *evaluation.divergence.plain, *questions)
    return tuple(path for path in named if not on_hub(path))
