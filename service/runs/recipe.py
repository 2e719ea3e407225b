"""The recipe of a run as it was when the run was queued: to be read, compared with that of another run, or used again."""

import difflib
from typing import Any

import yaml
from pydantic import BaseModel

from config.errors import SluiceError
from service.store import Store


class NoRecipe(SluiceError):
    """The run's recipe was not kept."""


class RunRecipe(BaseModel):
    """What a run was queued with."""

    run: int
    named: str
    """By which name or path it was asked for."""
    digest: str
    """sha256 over what it says and what its data hold: runs of one digest do the same."""
    content: dict[str, Any]
    """All that it says; data of the Hub at the commit that was fetched."""
    sources: list[dict[str, Any]]
    """Each text and the questions: use, name, sha256, and of what is from the Hub commit, path and licence."""

    @property
    def text(self) -> str:
        """As YAML, which is a recipe again."""
        return yaml.safe_dump(self.content, sort_keys=False, allow_unicode=True)


def recipe_of(store: Store, run: int) -> RunRecipe:
    """The recipe of a run. Raises UnknownRun, NoRecipe."""
    record = store.run(run)
    kept = store.recipe(record.recipe_digest)
    if kept is None:
        raise NoRecipe(f"The recipe of run {run} was not kept: an older version of Sluice queued it. It was {record.recipe}.")
    return RunRecipe(run=run, named=record.recipe, digest=kept.digest, content=dict(kept.content), sources=[dict(item) for item in kept.sources])


def differences(one: RunRecipe, other: RunRecipe) -> list[str]:
    """The lines of a unified diff between two recipes and the digests of their data; none where both say and read the same."""
    return list(difflib.unified_diff(_lines(one), _lines(other), f"run {one.run}: {one.named}", f"run {other.run}: {other.named}", lineterm=""))


def _lines(recipe: RunRecipe) -> list[str]:
    return [*recipe.text.splitlines(), *(f"# {item['use']}: {item['name']} sha256 {item['sha256']}" for item in recipe.sources)]
