"""Recipes as they are written: YAML in `config/recipes/`, or wherever the operator keeps his own, found by name or path, read, and understood."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.data import Local, Locate, Reference, as_written, local_only
from config.errors import ConfigurationError
from config.files import read_mapping, validated
from config.near import hint
from config.recipe import Recipe

RECIPES = Path(__file__).parent / "recipes"


def recipe_path(name_or_path: str) -> Path:
    """Where a recipe of that name in `config/recipes/`, or at that path, is to be found, whether it is there or not."""
    path = Path(name_or_path).expanduser()
    return path if path.suffix in {".yaml", ".yml"} else RECIPES / f"{name_or_path}.yaml"


def load_recipe(name_or_path: str, *, data: bool = True, locate: Locate = local_only) -> Recipe:
    """The recipe of that name in `config/recipes/`, or at that path. Raises ConfigurationError.

    `data` says whether the operator's files that it names must be there, `locate` where its data lie in the form that stages read: nothing is fetched here.
    """
    return read_recipe(name_or_path).parsed(data=data, locate=locate)


@dataclass(frozen=True, kw_only=True)
class Written:
    """A recipe as it is written: whoever needs to understand it twice reads it once, so that both speak of the same."""

    content: Mapping[str, Any]
    told: str  # what errors call it
    folder: Path  # that paths in it are relative to

    def parsed(self, *, data: bool = True, locate: Locate = local_only) -> Recipe:
        """The recipe, see `load_recipe`. Raises ConfigurationError."""
        return validated(self.content, Recipe, told=self.told, folder=self.folder, data=data, locate=locate)

    def named_data(self, *, there: bool = False) -> tuple[Reference | Local, ...]:
        """All data that it names, each once, in its order; `there` says whether the operator's files among them must be. Raises ConfigurationError."""
        found: dict[Reference | Local, None] = {}

        def note(data: Reference | Local) -> Path:
            found[data] = None
            return as_written(data)

        self.parsed(data=there, locate=note)
        return tuple(found)


def read_recipe(name_or_path: str) -> Written:
    """The recipe of that name in `config/recipes/`, or at that path, as it is written there now. Raises ConfigurationError."""
    path = recipe_path(name_or_path)
    if Path(name_or_path).suffix not in {".yaml", ".yml"} and not path.exists():
        known = sorted(file.stem for file in RECIPES.glob("*.yaml"))
        names = ", ".join(known) or "none"
        raise ConfigurationError(
            f"There is no recipe named {name_or_path!r}.{hint(name_or_path, known)} Known names: {names}; or give the path of a .yaml file."
        )
    return Written(content=read_mapping(path), told=str(path), folder=path.parent.resolve())


def named_data(name_or_path: str, *, there: bool = False) -> tuple[Reference | Local, ...]:
    """All data that a recipe names, see `Written.named_data`. Raises ConfigurationError."""
    return read_recipe(name_or_path).named_data(there=there)
