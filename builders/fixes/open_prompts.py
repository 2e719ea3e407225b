"""Keeps the tokenizer from putting an end-of-sequence token behind every text: an answer would begin after the end."""

from collections.abc import Iterator, Mapping
from typing import Any

from builders.fixes.edits import Edit, Files, Key, dict_at, list_at, value_at
from builders.fixes.vocabulary import BY_ID, named, special_ids
from config.rules import Family

SETTINGS, FILE, PLACE = "tokenizer_config.json", "tokenizer.json", ("post_processor",)
CLOSING = ("RobertaProcessing", "BertProcessing")  # post-processors that put `cls` before a text and `sep` behind it, whatever they are given


def repair(files: Files, family: Family | None) -> list[Edit]:
    """Switch `add_eos_token` off, and take every token that ends a text out of the end of tokenizer.json's templates.

    llama.cpp's converter believes these more than any other file: what stands there last becomes the end of sequence.
    """
    edits = []
    if value_at(files, SETTINGS, ("add_eos_token",)) is True:
        edits.append(Edit(file=SETTINGS, key=("add_eos_token",), after=False))
    ends, several = _ends(files), list_at(files, FILE, (*PLACE, "processors"))
    for place in (PLACE, *((*PLACE, "processors", number) for number in range(len(several)))):
        edits += _opened(place, dict_at(files, FILE, place), ends)
    return edits


def _ends(files: Files) -> frozenset[str]:
    """The texts of the tokens that any file names as an end."""
    stated = [value_at(files, file, ("eos_token_id",)) for file in BY_ID]
    numbers = {number for item in stated for number in (item if isinstance(item, list) else [item]) if isinstance(number, int)}
    eos = named(files).get("eos_token")
    return frozenset({text for text, number in special_ids(files).items() if number in numbers} | ({eos} if eos else set()))


def _opened(place: Key, processor: Mapping[str, Any], ends: frozenset[str]) -> Iterator[Edit]:
    for form in ("single", "pair"):
        parts = processor.get(form)
        if isinstance(parts, list) and (kept := _without(parts, ends)) != parts:
            removed = ", ".join(sorted(ends & {str(_special(part)) for part in parts}))
            yield Edit(file=FILE, key=(*place, form), after=kept, because=f"it put {removed} behind every text")
    match processor:
        case {"type": str(kind), "cls": [str(first), int(number)], "sep": [str(last), int()]} if kind in CLOSING and last in ends:
            yield Edit(file=FILE, key=place, after=_beginning(first, number), because=f"it put {last} behind every text")


def _without(parts: list[Any], ends: frozenset[str]) -> list[Any]:
    """The parts of a template without an end that follows a text; one that stands before the first is a beginning."""
    kept: list[Any] = []
    for part in parts:
        follows = any("Sequence" in earlier for earlier in kept if isinstance(earlier, dict))
        if not (follows and _special(part) in ends):
            kept.append(part)
    return kept


def _special(part: Any) -> str | None:
    found = value_at({"": part}, "", ("SpecialToken", "id"))
    return found if isinstance(found, str) else None


def _beginning(token: str, number: int) -> dict[str, Any]:
    """A post-processor that puts this token before a text, or before two, and nothing behind."""
    first: list[dict[str, Any]] = [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    special = {token: {"id": token, "ids": [number], "tokens": [token]}}
    return {"type": "TemplateProcessing", "single": first, "pair": [*first, {"Sequence": {"id": "B", "type_id": 0}}], "special_tokens": special}
