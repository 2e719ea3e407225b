"""A card whose parts Sluice owns lie between markers, so that what people write elsewhere in it outlives the next publication.

    <!-- sluice:begin files -->
    …
    <!-- sluice:end files -->

Kept are the text outside of all sections, in its place beside them, and the keys of the front matter that Sluice never writes.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import yaml

MARKER = "<!-- sluice:"  # what no other text on a card may hold

_MARKER = re.compile(r"[ \t]*<!-- sluice:(?P<word>begin|end) (?P<name>[a-z]+) -->[ \t]*")
_FRONT = re.compile(r"[\ufeff\s]*---[ \t]*\n(?P<front>(?:.*?\n)??)---[ \t]*(?:\n|$)", re.DOTALL)
_KEPT = "<!-- The markers of Sluice's sections in this card were damaged. What follows is what was written beside them; move it where it belongs. -->"


@dataclass(frozen=True, kw_only=True)
class Merged:
    """A card with what people wrote in the one before it."""

    text: str
    damage: str | None = None  # what was wrong with the markers of the one before, in a sentence


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A section, or with no name the text between two."""

    name: str | None
    text: str


class _Damaged(Exception):
    """The markers do not pair up; the message says how."""


def section(name: str, body: str) -> str:
    """The body as a section of that name, which is of small letters. Raises ValueError when a marker stands in it."""
    if MARKER in body:
        raise ValueError(f"the section {name} holds a marker of its own")
    return f"<!-- sluice:begin {name} -->\n\n{body.strip(chr(10))}\n\n<!-- sluice:end {name} -->\n"


def merge(new: str, old: str, *, owned: Collection[str], base: str | None = None) -> Merged:
    """The card `new` with what people wrote into `old`; `owned` are the keys of the front matter that are Sluice's.

    `base` is what Sluice published before people edited it, where that is known: without markers to go by, lines of it are not theirs. Merging the result
    once more changes nothing.
    """
    front, body = split(new)
    theirs, before = split(old)
    head = f"---\n{front}{_foreign(theirs, owned)}---\n\n"
    try:
        parts = _parts(before)
    except _Damaged as error:
        return Merged(text=head + _appended(body, _rescued(before, new, base)), damage=f"The markers of Sluice's sections in README.md were damaged: {error}.")
    if not any(part.name for part in parts) and any(part.text.strip() for part in parts):
        kept = _rescued(before, new, base)
        damage = "README.md has no markers of Sluice's sections." if kept else None
        return Merged(text=head + _appended(body, kept), damage=damage)
    return Merged(text=head + _woven(_parts(body), parts))


def split(card: str) -> tuple[str, str]:
    """Front matter without its fences, empty where there is none, and the body; neither holds a carriage return or begins with empty lines."""
    text = re.sub("\r\n?", "\n", card)
    found = _FRONT.match(text)
    front = "" if found is None else found["front"].strip("\n")
    return (front + "\n" if front else ""), text[0 if found is None else found.end() :].lstrip("\ufeff\n")


def _appended(body: str, kept: str) -> str:
    """The body, with what people wrote at its end where there is such text."""
    return body.rstrip("\n") + (f"\n\n{_KEPT}\n\n{kept}\n" if kept else "\n")


def _foreign(front: str, owned: Collection[str]) -> str:
    """The keys that are not Sluice's, written anew. The Hub lets nobody commit what is not a mapping; such front matter has no keys to keep."""
    try:
        values = yaml.safe_load(front)
    except yaml.YAMLError:
        return ""
    if not isinstance(values, dict):
        return ""
    kept = {key: value for key, value in values.items() if isinstance(key, str) and key not in owned}
    return yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, width=10**6) if kept else ""


def _parts(body: str) -> list[_Part]:
    """The sections with their markers and the texts between, in order. Raises _Damaged."""
    parts: list[_Part] = []
    lines: list[str] = []
    within: str | None = None
    for line in body.split("\n"):
        found = _MARKER.fullmatch(line)
        if found is None:
            lines.append(line)
            continue
        name = found["name"]
        if found["word"] == "begin":
            if within is not None:
                raise _Damaged(f"{name} begins within {within}")
            if any(part.name == name for part in parts):
                raise _Damaged(f"there are two sections {name}")
            parts.append(_Part(name=None, text="\n".join(lines).strip("\n")))
            lines, within = [line], name
        else:
            if within != name:
                raise _Damaged(f"{name} ends and did not begin")
            parts.append(_Part(name=name, text="\n".join([*lines, line])))
            lines, within = [], None
    if within is not None:
        raise _Damaged(f"{within} has no end")
    return [*parts, _Part(name=None, text="\n".join(lines).strip("\n"))]


def _woven(new: Sequence[_Part], old: Sequence[_Part]) -> str:
    """The new sections, each followed by what people wrote after the section of its name, or after one that is no more and came next."""
    names = {part.name for part in new if part.name}
    after: dict[str | None, list[str]] = {}
    last: str | None = None
    for part in old:
        if part.name is None:
            after.setdefault(last, []).append(part.text)
        elif part.name in names:
            last = part.name
    pieces = [*after.get(None, ())]
    for part in new:
        if part.name:
            pieces += [part.text, *after.get(part.name, ())]
    return "\n\n".join(piece for piece in pieces if piece.strip()) + "\n"


def _rescued(body: str, new: str, base: str | None) -> str:
    """What people wrote where markers do not tell: all that is in no whole section, but for Sluice's own lines."""
    published = base or ""
    theirs = set(_outside(split(published)[1])) if MARKER in published else set()  # what they had written by then is no line of ours
    ours = {line.strip() for text in (new, published) for line in text.splitlines() if line not in theirs} | {_KEPT}
    return "\n".join(line for line in _outside(body) if not line.strip() or line.strip() not in ours).strip("\n")


def _outside(body: str) -> Iterator[str]:
    """The lines that are neither markers nor in a section that is still whole."""
    lines = body.split("\n")
    found = [_MARKER.fullmatch(line) for line in lines]
    marks = [(number, match["word"], match["name"]) for number, match in enumerate(found) if match]
    whole = [range(start, end + 1) for (start, word, name), (end, other, same) in pairwise(marks) if (word, other, name) == ("begin", "end", same)]
    for number, line in enumerate(lines):
        if found[number] is None and not any(number in section for section in whole):
            yield line
