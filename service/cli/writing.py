"""What is written to terminals and pipes that cannot take every character: plain ones in the place of bars, marks and dashes."""

import codecs
import io
import os
import sys
from collections.abc import Mapping
from typing import Any

PLAIN: Mapping[str, str] = {
    "±": "+-", "×": "x", "…": "...", "→": "->", "≤": "<=", "≥": ">=", "²": "2", "·": ".", "–": "-", "—": "-", "‘": "'", "’": "'", "“": '"', "”": '"',
    "✓": "+", "✗": "x", "↺": "=", "━": "#", "─": "-", "│": "|", "•": "*",
}  # fmt: skip
SPINNING = range(0x2800, 0x2900)  # Braille: what spins while something works
HANDLER = "sluice-plain"


def prepare() -> None:
    """Let standard output and error replace what their encoding does not know, where it would end a command in the middle of a line."""
    codecs.register_error(HANDLER, _replaced)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            if not takes_all(stream):
                stream.reconfigure(errors=HANDLER)
            elif stream.isatty() and _asks_for_ascii(os.environ):
                stream.reconfigure(encoding="ascii", errors=HANDLER)


def takes_all(stream: Any) -> bool:
    """Whether every character can be written to the stream."""
    return str(getattr(stream, "encoding", None) or "utf-8").lower().startswith("utf")


def plain(text: str, encoding: str) -> str:
    """The text with plain characters for those that the encoding does not know; strangers' letters become question marks."""
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return "".join(_plain(character, encoding) for character in text)
    return text


def _plain(character: str, encoding: str) -> str:
    try:
        character.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return "*" if ord(character) in SPINNING else PLAIN.get(character, "?")
    return character


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    # one for one where an ellipsis cuts a line that is as long as the terminal is wide
    return "".join("." if character == "…" else _plain(character, "ascii") for character in error.object[error.start : error.end]), error.end


def _asks_for_ascii(environment: Mapping[str, str]) -> bool:
    """Whether the locale is C and nobody said otherwise. Python takes that for UTF-8 all the same, and then says so in LC_CTYPE."""
    if environment.get("PYTHONIOENCODING") or environment.get("PYTHONUTF8"):
        return False
    chosen = environment.get("LC_ALL") or environment.get("LC_CTYPE", "").replace("C.UTF-8", "") or environment.get("LANG", "")
    return chosen in {"C", "POSIX"}
