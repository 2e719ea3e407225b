"""What is known of programs that read published files otherwise than they were measured, by version and source: `readers.yaml`, and what cards say of it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from config.files import load_model
from config.rules import regex
from config.strict import Strict

FILE = Path(__file__).parent / "readers.yaml"


class Where(Strict):
    """For which variants it matters: for those of which all that is given here holds."""

    form: Literal["gguf", "safetensors"]
    """How they are published."""
    model_types: tuple[str, ...] = ()
    """Of which config.json names one; any when empty."""
    rope: tuple[str, ...] = ()
    """Types of rotary embeddings, of which config.json names one."""
    keys: dict[str, bool | int | str] = Field(default={})
    """Keys of config.json with these values."""
    parts: bool = False
    """Only where a variant is published in several files."""
    chat: bool = False
    """Only for models with a chat template."""
    template: Annotated[str, AfterValidator(regex)] = ""
    """Only for those in whose chat template this regular expression is found."""


class Known(Strict):
    """One program that reads something otherwise."""

    reader: str = Field(min_length=1)
    """As people call it."""
    versions: str = Field(min_length=1)
    """In which it was seen."""
    where: Where
    says: str = Field(min_length=1)
    """What it does, as the rest of a sentence that begins with the reader."""
    instead: str = ""
    """What its users can do, if anything, as the rest of a sentence."""
    source: str = Field(min_length=1)
    """By what that was seen: a program of `findings/`, or a reader of the table that `make readers` prints."""

    @property
    def line(self) -> str:
        """For a card."""
        return f"{self.reader} ({self.versions}) {self.says}{f': {self.instead}' if self.instead else ''}."


class Table(Strict):
    """All that is known."""

    known: tuple[Known, ...]


@dataclass(frozen=True, kw_only=True)
class Repo:
    """What decides which of it matters for a repo."""

    form: Literal["gguf", "safetensors"]
    config: Mapping[str, Any]  # what config.json says of the language model
    parts: bool = False  # some variant is in several files
    template: str | None = ""  # its chat template; None where it has none


@cache
def table() -> Table:
    """The checked-in table. Raises ConfigurationError when it is not valid."""
    return load_model(FILE, Table)


def known(repo: Repo) -> tuple[Known, ...]:
    """What matters for a repo, in the table's order."""
    return tuple(entry for entry in table().known if _matters(entry.where, repo))


def _matters(where: Where, repo: Repo) -> bool:
    return (
        where.form == repo.form
        and (not where.model_types or repo.config.get("model_type") in where.model_types)
        and (not where.rope or bool(set(where.rope) & set(_ropes(repo.config))))
        and all(repo.config.get(key) == value for key, value in where.keys.items())
        and (repo.parts or not where.parts)
        and (repo.template is not None or not where.chat)
        and (not where.template or re.search(where.template, repo.template or "") is not None)
    )


def _ropes(config: Mapping[str, Any]) -> Iterator[str]:
    """The types that config.json names, in the forms of transformers 4 and 5, of which the latter may have one for each kind of attention."""
    for key in ("rope_parameters", "rope_scaling"):
        said = config.get(key)
        for part in (said, *said.values()) if isinstance(said, Mapping) else ():
            if isinstance(part, Mapping):
                yield from (kind for name in ("rope_type", "type") if isinstance(kind := part.get(name), str))
