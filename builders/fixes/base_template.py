"""Takes the chat template away from base models that their makers ship with one, as a convenience for whoever trains them."""

import re

from builders.fixes.edits import Edit, Files
from builders.fixes.templates import templates
from config.rules import Family


def repair(files: Files, family: Family | None, *, repo: str) -> list[Edit]:
    """Remove each template of a release that its family names as a base model; of no other one, whatever its files say."""
    if family is None or family.base is None or re.fullmatch(family.base, repo) is None:
        return []
    places = dict.fromkeys((template.file, template.key[:1]) for template in templates(files))
    return [Edit(file=file, key=key, remove=True, because=f"{repo} is one of the {family.name} family") for file, key in places]
