"""Does the model's template take the conversations that it is calibrated and measured on: as they are, adapted, or not at all? See `engines.spoken`."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from config.errors import MeasurementError, TemplateRefusal
from config.progress import counted
from config.words import BASE_MODEL, Measurement, inapplicable
from engines import spoken
from qa import texts

VERSION = 1  # raise when outputs change

NAMES = ("conversations.adapted", "conversations.skipped")
MOST = 20_000  # conversations of one file that are looked at
BREAKS = "were left out, because the template breaks on them"
LISTED = 20  # lines that a sentence names


def check(out: Path, *, model: Path, chat: Sequence[Path]) -> dict[str, Any]:
    """conversations.adapted: how many of the JSON Lines files' conversations are changed for the template, and conversations.skipped: how many it refuses in
    every form or breaks on, each with a sentence for each file. A base model has no template that could refuse any.

    Raises MeasurementError when a line cannot be read, or the template breaks on a plain question.
    """
    from engines import hf  # torch

    tokenizer = hf.load_tokenizer(model)
    if tokenizer.chat_template is None:
        return {"measurements": [asdict(inapplicable(name, BASE_MODEL)) for name in NAMES]}
    render = hf.speaking(tokenizer).render
    looked, adapted = 0, dict[Path, list[int]]()
    refused, broken = dict[Path, list[int]](), dict[Path, dict[int, str]]()
    for path in chat:
        for number, messages in counted(list(islice(texts.numbered(path), MOST)), "conversations"):
            looked += 1
            found = spoken.tried(render, messages)
            if isinstance(found, TemplateRefusal):
                refused.setdefault(path, []).append(number)
            elif isinstance(found, MeasurementError):
                broken.setdefault(path, {})[number] = str(found)
            elif found[0] is not messages:
                adapted.setdefault(path, []).append(number)
    changed = _told(adapted, "were adapted to a template that does not take them as they are")
    left_out = _told(refused, "were left out, because the template takes no form of them")
    left_out += [f"{told}. Of line {min(broken[path])}: {broken[path][min(broken[path])]}" for path, told in zip(broken, _told(broken, BREAKS), strict=True)]
    counts = (sum(map(len, adapted.values())), sum(map(len, (*refused.values(), *broken.values()))))
    return {"measurements": [asdict(_measured(*found, looked)) for found in zip(NAMES, counts, (changed, left_out), strict=True)]}


def _told(found: Mapping[Path, Collection[int]], fate: str) -> list[str]:
    return [f"{len(lines)} conversations of {path.name} {fate}: {_lines(list(lines))}" for path, lines in found.items()]


def _measured(name: str, value: int, details: Sequence[str], looked: int) -> Measurement:
    return Measurement(name=name, value=value, unit="count", n=looked, details=tuple(details))


def _lines(numbers: Sequence[int]) -> str:
    more = len(numbers) - LISTED
    return f"line{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers[:LISTED]))}{f' and {more} more' if more > 0 else ''}"
