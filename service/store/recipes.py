"""Recipes as runs were queued with them, kept whole under their digests: what a file said stays known when it says something else, or is gone."""

from sqlalchemy.exc import IntegrityError

from service.store.database import Database, now
from service.store.records import KeptRecipe
from service.store.tables import RecipeRow


class Recipes(Database):
    """The recipes of runs."""

    def keep_recipe(self, kept: KeptRecipe) -> None:
        """Keep a recipe. Under one digest there are never two that build otherwise; of what changes nothing about that, the latest word counts."""
        if self.recipe(kept.digest) == kept:
            return
        content, sources = dict(kept.content), [dict(item) for item in kept.sources]
        try:
            with self.write() as session:
                session.merge(RecipeRow(digest=kept.digest, content=content, sources=sources, at=now()))
        except IntegrityError:
            pass  # another process was first

    def recipe(self, digest: str) -> KeptRecipe | None:
        """The recipe of that digest; None of one that an older version queued a run with."""
        with self.read() as session:
            row = session.get(RecipeRow, digest)
            return None if row is None else KeptRecipe(digest=row.digest, content=row.content, sources=tuple(row.sources))
