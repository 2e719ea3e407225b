"""Reads the YAML at the head of a model card, which a stranger wrote."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

CARD = "README.md"
LARGEST = 2**20  # bytes of a card that is looked into

_FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)


def read(card: Path) -> dict[str, Any]:
    """What it says; nothing where there is no card, no front matter, or none that can be read."""
    if not card.is_file() or card.stat().st_size > LARGEST:
        return {}
    found = _FRONT_MATTER.match(card.read_text(encoding="utf-8", errors="replace"))
    try:
        content = yaml.safe_load(found[1]) if found else None
    except (yaml.YAMLError, ValueError, RecursionError):  # a date that is none is a ValueError
        return {}
    return content if isinstance(content, dict) else {}


def rewritten(card: Path, said: Mapping[str, Any]) -> str:
    """The card's text with these keys in its front matter; those that are None are not there."""
    text = card.read_text(encoding="utf-8", errors="replace")
    found = _FRONT_MATTER.match(text)
    content = {key: value for key, value in {**read(card), **said}.items() if value is not None}
    return f"---\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=10**6)}---\n{text[found.end() :] if found else text}"
