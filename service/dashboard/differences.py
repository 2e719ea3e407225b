"""What fixes changed, line by line, as a person compares it."""

import difflib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from config.words import Patch
from service.runs.holds import PatchSummary

CONTEXT = 3  # lines around a change
MOST = 400  # lines that are shown of one change
WIDEST = 2000  # characters of a line


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a difference."""

    kind: Literal["added", "removed", "same", "gap"]
    text: str


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One change that a fix made to one file, or would make."""

    fix: str
    file: str
    key: str
    reason: str
    lines: Sequence[Line]
    more: int  # lines that are not shown


def differences(patches: Sequence[Patch | PatchSummary]) -> list[Difference]:
    """The changes in order."""
    found = []
    for patch in patches:
        lines = list(_lines(patch.before, patch.after))
        cut = lines[:MOST]
        found.append(Difference(fix=patch.fix, file=patch.file, key=patch.key, reason=patch.reason, lines=cut, more=len(lines) - len(cut)))
    return found


def _lines(before: Any, after: Any) -> Iterator[Line]:
    kinds: dict[str, Literal["added", "removed", "same", "gap"]] = {"+": "added", "-": "removed", " ": "same", "@": "gap"}
    for place, line in enumerate(difflib.unified_diff(_text(before), _text(after), n=CONTEXT, lineterm="")):
        if place > 2 or (place == 2 and not line.startswith("@")):  # the first two name files; the first place is known to be the first
            yield Line(kind=kinds[line[0]], text="⋯" if line[0] == "@" else line[1 : WIDEST + 1])


def _text(value: Any) -> list[str]:
    if value is None:
        return []
    return value.splitlines() if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False).splitlines()
