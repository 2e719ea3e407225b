"""Put strings of strangers into Markdown as text: nothing in them becomes markup, a link, HTML, mathematics or a table cell's end.

Character references do it, for they cannot take part in any structure; a backslash would itself be read by the Hub's mathematics.
Text is safe anywhere but at the beginning of a line.
"""

import re
import unicodedata
from typing import Any

from publishers import shown

_MARKUP = re.compile(r"[\\`*\[\]<|~$&]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")  # `_` inside a word is never emphasis
_WORD = re.compile(r"[A-Za-z0-9._/-]+")
_PLAIN_CODE = re.compile(r"[A-Za-z0-9 ._:;,/<>|{}\[\]()\"'=+%@#!?*-]+")
_LINK = re.compile(r"(?i)(?<=[a-z]):(?=//)|(?<=\bwww)\.")
_JOINER = "\N{WORD JOINER}"  # breaks up what a renderer would turn into a link, and shows nothing

EXCERPT = 160  # characters of a value that a card shows


class Markdown(str):
    """Markdown that may stand as it is. Everything else is escaped when a template prints it."""

    __slots__ = ()


def text(value: object) -> Markdown:
    """`value` as running text on one line."""
    if isinstance(value, Markdown):
        return value
    line = " ".join("".join(" " if unicodedata.category(character)[0] in "CZ" else character for character in str(value)).split())
    escaped = _MARKUP.sub(lambda match: f"&#{ord(match[0])};", line)
    return Markdown(_LINK.sub(lambda match: _JOINER + match[0], escaped))


def word(value: str) -> Markdown:
    """`value` as it stands, for code blocks, where nothing can be escaped. Raises ValueError when it is more than letters, digits and `._/-`."""
    if not _WORD.fullmatch(value):
        raise ValueError(f"{value!r} cannot stand in a code block")
    return Markdown(value)


def code(value: object) -> Markdown:
    """`value` as inline code on one line; inside a table use `text`, for `|` ends a cell even in code."""
    content = str(value)
    return Markdown(f"`{content}`") if _PLAIN_CODE.fullmatch(content) else Markdown(f"<code>{text(content)}</code>")


def excerpts(before: Any, after: Any) -> tuple[Markdown, Markdown]:
    """Two JSON values as code. Long strings are cut to the place where they part, so that a change of a whole template stays readable."""
    one, other = shown.excerpts(before, after, EXCERPT)
    return code(one), code(other)
