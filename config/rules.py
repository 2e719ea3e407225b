"""Fix rules and model families: which repairs a release gets, why, and what is known about its family. YAML in `config/fixes/` and `config/families/`."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from config.errors import ConfigurationError
from config.files import load_model

FIXES = Path(__file__).parent / "fixes"
FAMILIES = Path(__file__).parent / "families"


def _regex(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return pattern


class Strict(BaseModel):
    """A part of a rule or family: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Rule(Strict):
    """One thing to repair in a release."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    """Name of the rule, in patches and on cards."""
    version: int = Field(ge=1)
    """Raise when the repair or its parameters change what is written."""
    reason: str = Field(min_length=1)
    """Why, in one sentence for the model card."""
    repair: str
    """Name of the repair, a module of `builders/fixes/`."""
    always: bool = False
    """Apply even when the recipe says `fixes: false`: for what must never be published, not for what is merely better."""
    families: tuple[str, ...] = ()
    """Names of the only families to apply it to; any release when empty."""
    params: dict[str, Any] = {}
    """Keyword arguments of the repair."""


class Sampling(Strict):
    """Sampling advice, under the names of generation_config.json."""

    temperature: float = Field(ge=0)
    """0 answers greedily."""
    top_k: int = Field(ge=0)
    """Tokens to choose from; 0: all."""
    top_p: float = Field(gt=0, le=1)
    """Share of the probability to choose from."""
    min_p: float = Field(ge=0, le=1)
    """Least probability, as a share of the likeliest token's."""
    repetition_penalty: float = Field(gt=0)
    """1 punishes nothing."""


class Family(Strict):
    """Releases that share defects and advice."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    """Name of the family."""
    repo: Annotated[str, AfterValidator(_regex)] | None = None
    """Regular expression, searched in the repo's name without its owner, case ignored."""
    model_types: tuple[str, ...] = ()
    """Values of `model_type` in config.json."""
    sampling: Sampling | None = None
    """Advice for releases that give none themselves."""
    notes: tuple[str, ...] = ()
    """What someone who runs or repairs the model should know, one sentence each."""

    @model_validator(mode="after")
    def _matches_something(self) -> Self:
        if self.repo is None and not self.model_types:
            raise ValueError("give `repo`, `model_types` or both: without them the family matches nothing")
        return self

    def matches(self, repo: str, model_type: str | None) -> bool:
        """Whether a release belongs to the family; when it names both a pattern and model types, both must hold."""
        name = repo.rpartition("/")[2]
        return (self.repo is None or re.search(self.repo, name, re.IGNORECASE) is not None) and (not self.model_types or model_type in self.model_types)


def load_rules(folder: Path = FIXES) -> tuple[Rule, ...]:
    """The rules in `folder`, in the order of their file names: a later repair sees what an earlier one changed. Raises ConfigurationError."""
    rules = tuple(load_model(path, Rule) for path in sorted(folder.glob("*.yaml")))
    _refuse_repeated("fix rules", folder, [rule.id for rule in rules])
    return rules


def load_families(folder: Path = FAMILIES) -> tuple[Family, ...]:
    """The families in `folder`. Raises ConfigurationError."""
    families = tuple(load_model(path, Family) for path in sorted(folder.glob("*.yaml")))
    _refuse_repeated("families", folder, [family.name for family in families])
    return families


def family_of(repo: str, model_type: str | None, families: Sequence[Family]) -> Family | None:
    """The family of a release, None when no family matches. One that matched the repo's name goes before those that matched its model type only.

    Raises ConfigurationError when that leaves several.
    """
    found = [family for family in families if family.matches(repo, model_type)]
    found = [family for family in found if family.repo is not None] or found
    if len(found) > 1:
        names = ", ".join(family.name for family in found)
        raise ConfigurationError(f"{repo} (model type {model_type}) belongs to several families: {names}. Narrow their `repo` patterns in {FAMILIES}.")
    return found[0] if found else None


def _refuse_repeated(what: str, folder: Path, names: Sequence[str]) -> None:
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigurationError(f"{folder} holds several {what} named {', '.join(repeated)}. Give each a name of its own.")
