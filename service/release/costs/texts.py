"""How many tokens and questions the recipe's data hold, roughly, without a tokenizer."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from config.errors import MeasurementError
from config.texts import Mmlu, Text
from qa import looks, mmlu

BYTES_PER_TOKEN = 4.4  # of conversations in JSON, whose template makes up for the quotes, and of prose
CONVERSATION = 370  # bytes of a short one in JSON
TOKENS_PER_PIECE = 1.1  # of words, marks and line ends

_PIECE = re.compile(r"\w+|[^\w\s]|\n")


def size(files: Sequence[Path]) -> int:
    """Bytes of all files; of one that is gone, none."""
    return sum(path.stat().st_size for path in files if path.is_file())


def read(text: Text) -> int:
    """Bytes of a recipe's text, of what the model writes itself as well."""
    return size((*text.chat, *text.plain)) + round(BYTES_PER_TOKEN * text.generated)


def tokens(text: Text, most: int | None = None) -> int:
    """How many are there, and used."""
    there = int(read(text) / BYTES_PER_TOKEN)
    return max(0, min(there, text.tokens if most is None else most))


def windows(text: Text, context: int, most: int | None = None) -> int:
    """Windows of so many tokens."""
    return max(2, tokens(text, most) // context)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Questions of one sample."""

    subjects: int
    questions: int
    prefix: float  # tokens that the prompts of all subjects share, together
    suffix: float  # tokens of all questions by themselves


def asked(about: Mmlu | None) -> tuple[Asked, Asked]:
    """The first sample, and what doubling it would add: nothing when it may not grow, or when the questions cannot be read, which their own stage tells."""
    none = Asked(subjects=0, questions=0, prefix=0.0, suffix=0.0)
    if about is None:
        return none, none
    try:
        return _asked(str(about.data), about.shots, about.questions_per_subject, about.most)
    except MeasurementError:
        return none, none


@lru_cache(maxsize=8)
def _asked(folder: str, shots: int, first: int | None, most: int | None) -> tuple[Asked, Asked]:
    subjects = mmlu.load(Path(folder), shots=shots, questions_per_subject=most)
    largest = max(len(subject.questions) for subject in subjects)
    sizes = looks.sizes(first or largest, largest)
    following = sizes[1] if len(sizes) > 1 else sizes[0]
    return _part(subjects, 0, sizes[0]), _part(subjects, sizes[0], following)


def _part(subjects: Sequence[mmlu.Subject], start: int, end: int) -> Asked:
    questions = [question for subject in subjects for question in subject.questions[start:end]]
    examples = [example for subject in subjects for example in subject.examples if subject.questions[start:end]]
    return Asked(
        subjects=sum(bool(subject.questions[start:end]) for subject in subjects),
        questions=len(questions),
        prefix=_tokens(examples) if questions else 0.0,
        suffix=_tokens(questions),
    )


def _tokens(questions: Sequence[mmlu.Question]) -> float:
    """Of questions with their choices, letters and answer lines."""
    pieces = sum(len(_PIECE.findall(" ".join((question.text, *question.choices)))) + 17 for question in questions)
    return TOKENS_PER_PIECE * pieces
