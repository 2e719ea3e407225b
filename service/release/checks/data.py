"""Check: the recipe's calibration and evaluation data can be read and have the form that the stages expect. Reads the beginning of each text file."""

import codecs
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from config.errors import MeasurementError
from config.texts import Text
from qa import mmlu
from qa.texts import numbered
from service.release.graph import Check

if TYPE_CHECKING:
    from service.release.prospect import Prospect

LINES = 50  # of a file of conversations
BYTES = 2**20  # of a plain text


def unusable(prospect: "Prospect") -> Iterator[str]:
    """What is wrong with the files that the recipe names."""
    recipe = prospect.recipe
    parts = {"calibration": recipe.calibration, "evaluation.divergence": recipe.evaluation.divergence}
    faults = [fault for part, text in parts.items() for fault in (*_text(part, text), *_written(part, text, recipe.evaluation.context))]
    yield from dict.fromkeys(faults)
    if (asked := recipe.evaluation.mmlu) is None:
        return
    try:
        mmlu.load(asked.data, shots=asked.shots, questions_per_subject=asked.most)
    except MeasurementError as error:
        yield str(error)


def _text(part: str, text: Text) -> Iterator[str]:
    faults = [fault for path in text.chat if (fault := _chat(path))] + [fault for path in text.plain if (fault := _plain(path))]
    yield from faults
    files = (*text.chat, *text.plain)
    if not faults and not text.generated and not any(_holds_something(path) for path in files):
        yield f"{', '.join(str(path) for path in files)}: empty, and the recipe names nothing else under `{part}`. Put text there."


def _written(part: str, text: Text, context: int) -> Iterator[str]:
    """What is wrong with how much the model is to write."""
    if text.generated and not text.chat and not text.plain and text.generated < 2 * context:
        yield f"`{part}.generated` asks for {text.generated} tokens, and two windows of {context} are needed at least. Ask for more."


def _chat(path: Path) -> str | None:
    """What is wrong with the first conversations of a file."""
    try:
        for number, messages in islice(numbered(path), LINES):
            if not _is_conversation(messages):
                return f'{path}, line {number}, has no list of messages, each with a role. It must read {{"messages": [{{"role": "user", "content": …}}, …]}}.'
    except (OSError, UnicodeDecodeError) as error:
        return _unreadable(path, error)
    except MeasurementError as error:
        return str(error)
    return None


def _is_conversation(messages: object) -> bool:
    """Whether what stands under `messages` in a line is what templates take."""
    return isinstance(messages, list) and bool(messages) and all(isinstance(item, dict) and isinstance(item.get("role"), str) for item in messages)


def _plain(path: Path) -> str | None:
    try:
        _beginning(path)
    except (OSError, UnicodeDecodeError) as error:
        return _unreadable(path, error)
    return None


def _unreadable(path: Path, error: OSError | UnicodeDecodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"{path} is not UTF-8 text ({error.reason}). Convert it, or name another file."
    return f"{path} cannot be read: {os.strerror(error.errno) if error.errno else error}. Name a file that this account can read."


def _holds_something(path: Path) -> bool:
    with path.open("rb") as file:
        return bool(file.read(BYTES).strip())


def _beginning(path: Path) -> str:
    """The first BYTES of a file. Raises OSError, UnicodeDecodeError."""
    with path.open("rb") as file:
        return codecs.getincrementaldecoder("utf-8")().decode(file.read(BYTES))  # which a character may lie across


CHECKS = (Check(name="data", stage="text overlap", look=unusable),)
