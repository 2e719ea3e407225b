"""Keeps the tokenizer from putting an end-of-sequence token behind every text: an answer would begin after the end."""

from typing import Any

from builders.fixes.edits import Edit, Files, list_at, value_at
from builders.fixes.vocabulary import named
from config.rules import Family


def repair(files: Files, family: Family | None) -> list[Edit]:
    """Switch `add_eos_token` off, and take eos out of the end of tokenizer.json's templates."""
    edits = []
    if value_at(files, "tokenizer_config.json", ("add_eos_token",)) is True:
        edits.append(Edit(file="tokenizer_config.json", key=("add_eos_token",), after=False))
    eos = named(files).get("eos_token")
    processors = list_at(files, "tokenizer.json", ("post_processor", "processors"))
    for place in [("post_processor",), *(("post_processor", "processors", number) for number in range(len(processors)))]:
        for form in ("single", "pair"):
            key = (*place, form)
            parts = list_at(files, "tokenizer.json", key)
            kept = _without(parts, eos)
            if kept != parts:
                edits.append(Edit(file="tokenizer.json", key=key, after=kept, because=f"it put {eos} behind every text"))
    return edits


def _without(parts: list[Any], eos: str | None) -> list[Any]:
    """The parts of a template without an eos that follows a text; one that stands before the first is a beginning."""
    kept: list[Any] = []
    for part in parts:
        follows = any("Sequence" in earlier for earlier in kept if isinstance(earlier, dict))
        if not (follows and eos is not None and value_at({"": part}, "", ("SpecialToken", "id")) == eos):
            kept.append(part)
    return kept
