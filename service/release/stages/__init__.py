"""The stages of a release. Each file declares some by a function `stages(recipe)`; those that build variants are declared by the variants' kinds.

A new stage is a declaration in the file of its part of the way, or in a file of its own: every module here is read.
"""

import importlib
import pkgutil
from collections.abc import Iterator

from config.recipe import Recipe
from service.release.graph import Stage


def declared(recipe: Recipe) -> Iterator[Stage]:
    """What every module of this folder declares for a recipe, module by module in the order of their names."""
    for module in sorted(item.name for item in pkgutil.iter_modules(__path__)):
        yield from importlib.import_module(f"{__name__}.{module}").stages(recipe)
