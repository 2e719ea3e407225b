"""Puts the scaling of positions right that a model's makers corrected after its release: copies and tunes of its first days still hold the first one."""

from collections.abc import Mapping
from typing import Any

from builders.fixes.edits import Edit, Files, dict_at
from config.rules import Family

FILE = "config.json"
SECTIONS = ((), ("text_config",))
FORMS = ("rope_parameters", "rope_scaling")


def repair(files: Files, family: Family | None, *, first: Mapping[str, Any], corrected: Mapping[str, Any]) -> list[Edit]:
    """Where a scaling says all of `first`, write `corrected` into it; one that says anything else is somebody's own and stays."""
    places = [(*section, form) for section in SECTIONS for form in FORMS]
    found = [place for place in places if all(dict_at(files, FILE, place).get(name) == value for name, value in first.items())]
    because = "it is the one that was published first"
    return [Edit(file=FILE, key=(*place, name), after=value, because=because) for place in found for name, value in corrected.items()]
