"""Writes the sampling advice of the model's family into generation_config.json where the release gives none."""

from collections.abc import Mapping
from typing import Any

from builders.fixes.edits import Edit, Files, dict_at, value_at
from builders.fixes.sampling_flags import SAMPLING, idle
from builders.fixes.templates import templates
from config.rules import Family

FILE = "generation_config.json"
TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


def repair(files: Files, family: Family | None) -> list[Edit]:
    """Add each figure that the file lacks, and turn sampling on. A file that is missing is made, with the special tokens of config.json.

    Figures that upstream gives are never changed, and `do_sample: false` without any is its advice to take the likeliest token, as a temperature of 0 is; with
    some they are meant, as engines that know no `do_sample` heed them. Where the family's makers give base models a chat template, a tune has the file of such
    a one, and that advice is none for it. A family without documented figures changes nothing, and a base model, which has no chat template, is none of those
    of which they are documented.
    """
    if family is None or family.sampling is None or not templates(files) or _likeliest(dict_at(files, FILE, ()), family):
        return []
    advice = {key: value for key, value in family.sampling.stated.items() if value_at(files, FILE, (key,)) is None}
    if not advice:
        return []
    because = f"the figures are those of the {family.name} family"
    wanted = ({"do_sample": True} if value_at(files, FILE, ("do_sample",)) is not True else {}) | advice
    if FILE not in files:
        numbers = {key: value_at(files, "config.json", (key,)) for key in TOKENS}
        wanted = {key: number for key, number in numbers.items() if number is not None} | wanted
    return [Edit(file=FILE, key=(key,), after=value, because=because) for key, value in wanted.items()]


def _likeliest(content: Mapping[str, Any], family: Family) -> bool:
    """Whether upstream wants the likeliest token at each step."""
    temperature = content.get("temperature")
    if isinstance(temperature, int | float) and temperature <= 0:
        return True
    return content.get("do_sample") is False and not idle(content, SAMPLING) and family.base is None
