"""The words of the readers' table: what is read, by whom, and what came of it."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from config.errors import MeasurementError
from engines.model import Floats

GGUF, BITS16, NF4 = "gguf", "16bit", "bnb-4bit"  # forms in which a variant is published


class Refusal(MeasurementError):
    """A reader says in words that it does not take a file."""


class Broken(MeasurementError):
    """A reader ended without an answer: a crash, or its deadline."""


class Result(StrEnum):
    """What a reader makes of a variant."""

    SAME = "the same"
    OTHER = "something else"
    REFUSED = "refuses in words"
    BROKEN = "breaks"
    MISSING = "not run"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one reader makes of one variant."""

    result: Result
    words: str = ""  # a sentence without its full stop: why, or how far it was compared


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One variant as it is published."""

    tag: str
    form: str  # one of GGUF, BITS16, NF4
    path: Path  # the GGUF file, of several the first; or the folder of safetensors
    files: tuple[Path, ...]  # all its weights
    folder: Path  # the repo's
    repo: str  # its name on a Hub, "namespace/name"
    hub: str | None = None  # address of a Hub that has it; None where none is asked


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a program says of a model: how it reads a text, what it computes, and how it goes on."""

    ids: tuple[int, ...] | None = None  # of the question's text, as the program reads it by itself
    logprobs: Floats | None = None  # (positions, vocabulary) of the question's last tokens, in nats
    answer: tuple[int, ...] | None = None  # greedy continuation of the question's tokens


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The reading that others are compared with."""

    tokens: tuple[int, ...]  # of the question
    logprobs: Floats
    answer: tuple[int, ...]
    steps: Floats  # (tokens of the answer, vocabulary) log-probabilities from which each of the answer was chosen
    by: str  # whose it is
    noise: tuple[float, ...] = ()  # nats by which each of its distributions differs when the same program computes it in another order


Ask = Callable[[Variant, Callable[[], Reference]], Outcome]


@dataclass(frozen=True, kw_only=True)
class Reader:
    """One program that reads published files."""

    name: str
    version: Callable[[], str]
    forms: frozenset[str]
    missing: Callable[[], str | None]  # why it cannot run here, in words; None where it can
    ask: Ask  # raises Refusal or Broken
    needs_hub: bool = False
    rests_on: tuple[str, ...] = ()  # files besides the weights that its outcome rests on, by their names in the repo

    def tried(self, variant: Variant, reference: Callable[[], Reference]) -> Outcome:
        """What it makes of a variant, refusals and ends without an answer among it."""
        try:
            return self.ask(variant, reference)
        except Refusal as error:
            return Outcome(result=Result.REFUSED, words=str(error))
        except Broken as error:
            return Outcome(result=Result.BROKEN, words=str(error))
