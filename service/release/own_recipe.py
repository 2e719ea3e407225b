"""The recipe of one command: what it asks for beside a recipe's name is written down as a recipe of its own, where resume and service find it again."""

from collections.abc import Sequence

from config import choice
from config.data import as_written
from config.settings import Settings
from config.written import load_recipe


def recipe_for(settings: Settings, recipe: str, *, variants: Sequence[str] = (), quick: bool = False) -> str:
    """The name or path of a recipe that is `recipe` with only these variants, and on small samples if `quick`; itself where neither is asked for.

    Raises ConfigurationError.
    """
    if not variants and not quick:
        return recipe
    own = load_recipe(recipe, locate=as_written)  # a data set of the Hub stays what it is
    if variants:
        own = choice.only(own, variants)
    if quick:
        own = choice.quick(own)
    return str(choice.write(own, settings.folder / "recipes"))
