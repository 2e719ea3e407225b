"""Fix rules and model families: which repairs a release gets, why, and what is known about its family. YAML in `config/fixes/` and `config/families/`."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from config.errors import ConfigurationError
from config.files import load_model

FIXES = Path(__file__).parent / "fixes"
FAMILIES = Path(__file__).parent / "families"

SystemPrompt = Literal["keep", "remove"]
"""What becomes of a system prompt that a chat template writes where a conversation has none."""

Sampler = Literal["penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature"]
"""llama.cpp's names of samplers, for its option `--samplers`."""


def regex(pattern: str) -> str:
    """The pattern. Raises ValueError when it is none."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return pattern


def _several(value: object) -> object:
    return [value] if isinstance(value, str) else () if value is None else value


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
    derived: bool = False
    """What it writes is derived from the release alone. Where no family vouches for that, a release is held until a person approves it, unless the recipe says
    `fixes: auto`."""
    asked_by: Literal["system_prompt: remove"] | None = None
    """What a recipe has to say for the rule to apply, which it then does even with `fixes: false`; left out where it need not be asked for."""
    families: tuple[str, ...] = ()
    """Names of the only families to apply it to; any release when empty."""
    params: dict[str, Any] = {}
    """Keyword arguments of the repair."""

    def applies(self, *, fixes: bool, system_prompt: SystemPrompt, family: str | None) -> bool:
        """Whether it applies to a release of this family by a recipe that says so."""
        if self.asked_by is not None:
            return self.asked_by == f"system_prompt: {system_prompt}"
        return self.always or (fixes and (not self.families or family in self.families))


class Sampling(Strict):
    """Sampling advice, under the names of generation_config.json. What the model's makers do not document is left out."""

    temperature: float | None = Field(None, ge=0)
    """0 answers greedily."""
    top_k: int | None = Field(None, ge=0)
    """Tokens to choose from; 0: all."""
    top_p: float | None = Field(None, gt=0, le=1)
    """Share of the probability to choose from."""
    min_p: float | None = Field(None, ge=0, le=1)
    """Least probability, as a share of the likeliest token's."""
    repetition_penalty: float | None = Field(None, gt=0)
    """1 punishes nothing."""

    @property
    def stated(self) -> dict[str, float]:
        """The figures that are given, by name."""
        return self.model_dump(exclude_none=True)

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.stated:
            raise ValueError("give at least one figure, or leave `sampling` out")
        return self


class Pieces(Strict):
    """What tells a family's chat templates from others: pieces of their source, as they stand there."""

    holds: tuple[str, ...] = Field(min_length=1)
    """Each of these occurs in the template."""
    lacks: tuple[str, ...] = ()
    """None of these does."""

    @property
    def said(self) -> frozenset[tuple[str, bool]]:
        """Each piece, and whether it has to be there."""
        return frozenset([*((piece, True) for piece in self.holds), *((piece, False) for piece in self.lacks)])

    def fit(self, template: str) -> bool:
        """Whether the template is such a one."""
        return all(piece in template for piece in self.holds) and not any(piece in template for piece in self.lacks)


class Family(Strict):
    """Releases that share defects and advice: known by their architecture and by their chat template."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    """Name of the family, which is that of its file."""
    model_types: tuple[str, ...] = Field(min_length=1)
    """Values of `model_type` in config.json."""
    template: Pieces | None = None
    """Pieces of the chat template; any template when left out. A release without a template is known by its architecture, where no other family has that."""
    repo: Annotated[str, AfterValidator(regex)] | None = None
    """Regular expression, searched in the repo's name without its owner, case ignored. It narrows what the two above find, and never suffices by itself."""
    base: Annotated[str, AfterValidator(regex)] | None = None
    """Regular expression for the whole of owner/name of those of its makers' releases that only go on with a text, though a chat template lies beside them: it
    is left out of these, and they are released as base models. Files do not tell them: a tune that learned the template is often saved with the same ones."""
    end_of_turn: str | None = None
    """The special token that the template writes after an answer; left out where the next turn's header ends it."""
    opens: str = ""
    """What the template writes at the end of every prompt for an answer, after the assistant's header, with its line breaks: `<think>` of models made to think.
    Empty where it writes nothing there, or does not always."""
    stop: tuple[str, ...] = ()
    """Further strings at which generation has to stop, for Ollama's `params`."""
    sampling: Sampling | None = None
    """Advice for releases that give none themselves."""
    samplers: tuple[Sampler, ...] = ()
    """Order in which llama.cpp's samplers have to work, where it matters."""
    ollama: Annotated[tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+[.]gotmpl$")], ...], BeforeValidator(_several)] = ()
    """Templates for Ollama, in Go's language: one file under `templates/`, or several where releases of the family differ. That is published with a model by
    which Go renders what the model's own does. In it, `__DEFAULT_SYSTEM__` stands for the system prompt that the model's own writes where there is none."""
    templates: tuple[str, ...] = ()
    """Chat templates that prove all this: of llama.cpp's own collection `models/templates`; of a model of Ollama's library, by its name there (`gemma3:1b`), as
    @huggingface/ollama-utils has them, which `make readers` fetches; or files beside this one under `templates/`."""
    notes: tuple[str, ...] = ()
    """What someone who runs or repairs the model should know, one sentence each."""

    def fits(self, model_type: str | None, template: str | None) -> bool:
        """Whether a release may belong to the family by what it is; without a template, its architecture alone is asked."""
        return model_type in self.model_types and (template is None or self.template is None or self.template.fit(template))

    def narrows(self, other: "Family") -> bool:
        """Whether it says of the template all that `other` says, and more."""
        ours, theirs = (frozenset[tuple[str, bool]]() if family.template is None else family.template.said for family in (self, other))
        return theirs < ours

    def matches(self, repo: str, model_type: str | None, template: str | None) -> bool:
        """Whether a release belongs to the family, as far as the family alone can tell."""
        named = self.repo is None or re.search(self.repo, repo.rpartition("/")[2], re.IGNORECASE) is not None
        return named and self.fits(model_type, template)


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


def family_of(repo: str, model_type: str | None, template: str | None, families: Sequence[Family]) -> Family | None:
    """The family of a release by its architecture and its chat template; None when no family matches, or several do and none of them goes before the others."""
    found = families_of(repo, model_type, template, families)
    return found[0] if len(found) == 1 else None


def families_of(repo: str, model_type: str | None, template: str | None, families: Sequence[Family]) -> tuple[Family, ...]:
    """The families that a release may belong to, one where it is clear: one that asks for a repo's name goes before those that do not, and one that says all
    that another says of the template, and more, goes before that one.
    """
    found = [family for family in families if family.matches(repo, model_type, template)]
    found = [family for family in found if family.repo is not None] or found
    if template is not None:
        found = [family for family in found if not any(other.narrows(family) for other in found)]
    return tuple(found)


def _refuse_repeated(what: str, folder: Path, names: Sequence[str]) -> None:
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigurationError(f"{folder} holds several {what} named {', '.join(repeated)}. Give each a name of its own.")
