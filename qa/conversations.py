"""Does the model's template take the conversations that it is calibrated and measured on: as they are, adapted, or not at all? See `engines.spoken`."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from config.progress import counted
from config.words import BASE_MODEL, Measurement, inapplicable
from engines import spoken
from qa import texts

VERSION = 1  # raise when outputs change

NAMES = ("conversations.adapted", "conversations.skipped")
MOST = 20_000  # conversations of one file that are looked at
LISTED = 20  # lines that a sentence names


def check(out: Path, *, model: Path, chat: Sequence[Path]) -> dict[str, Any]:
    """conversations.adapted: how many of the JSON Lines files' conversations are changed for the template, and conversations.skipped: how many it refuses in
    every form, each with a sentence for each file. A base model has no template that could refuse any. Raises MeasurementError when a line cannot be read.
    """
    from engines import hf  # torch

    tokenizer = hf.load_tokenizer(model)
    if tokenizer.chat_template is None:
        return {"measurements": [asdict(inapplicable(name, BASE_MODEL)) for name in NAMES]}
    render = hf.speaking(tokenizer).render
    looked, found = 0, {name: dict[Path, list[int]]() for name in NAMES}
    for path in chat:
        for number, messages in counted(list(islice(texts.numbered(path), MOST)), "conversations"):
            looked += 1
            form = spoken.taken(render, messages)
            if form is None or form[0] is not messages:
                found[NAMES[form is None]].setdefault(path, []).append(number)
    return {"measurements": [asdict(_measured(name, found[name], looked)) for name in NAMES]}


def _measured(name: str, found: dict[Path, list[int]], looked: int) -> Measurement:
    fate = "were adapted to a template that does not take them as they are" if name == NAMES[0] else "were left out, because the template takes no form of them"
    details = tuple(f"{len(lines)} conversations of {path.name} {fate}: {_lines(lines)}" for path, lines in found.items())
    return Measurement(name=name, value=sum(map(len, found.values())), unit="count", n=looked, details=details)


def _lines(numbers: Sequence[int]) -> str:
    more = len(numbers) - LISTED
    return f"line{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers[:LISTED]))}{f' and {more} more' if more > 0 else ''}"
