"""Writes JSON in the form that a file had before, so that a repair changes the lines that it is about and no others."""

import json
import re
from typing import Any

_INDENT = re.compile(r"\A\s*\{\s*?\n([ \t]+)\"")
_ESCAPED = re.compile(r"\\u[0-9a-fA-F]{4}")


def written(content: Any, like: str) -> str:
    """The content as text: indented, escaped and ended as `like` is, where that is text of JSON; else by two blanks, unescaped, with a line end."""
    found = _INDENT.match(like)
    escaped = _ESCAPED.search(like) is not None and like.isascii()
    indent = found[1] if found else 2 if not like or "\n" in like.strip() else None
    dense = indent is None and '": ' not in like
    text = json.dumps(content, indent=indent, ensure_ascii=escaped, separators=(",", ":") if dense else None)
    return text + ("\n" if not like or like.endswith("\n") else "")
