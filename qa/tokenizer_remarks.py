"""Where transformers and llama.cpp read a text as different tokens: who differs from tokenizer.json, and whether it is a known difference of llama.cpp's.

A known difference has a name, the versions of llama.cpp that were looked at, and an exact account of itself: how llama.cpp reads the text can be had from
tokenizer.json by one stated change. What that does not account for is unknown, and blocks. What it does is a remark as long as it touches next to none of the
evaluation text, see `BOUND`.
"""

import json
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from engines import llama, toolchain
from qa import alike

BOUND = 0.001  # of the evaluation text's tokens may known differences touch


@dataclass(frozen=True, kw_only=True)
class Known:
    """One known difference."""

    name: str
    why: str
    versions: frozenset[str]  # of the pinned llama.cpp in which it was seen: another version is to be looked at again
    forms: frozenset[str]  # types of normalizers in tokenizer.json that it concerns
    rewrite: Callable[[str, str], str]  # text and form: the text whose tokens by tokenizer.json llama.cpp gives when it reads the other way round


KNOWN: Sequence[Known] = (
    Known(
        name="no Unicode normalization",
        why="llama.cpp reads characters as they are written, where tokenizer.json composes them first: é as e and an accent is another text to it",
        versions=frozenset({"0.3.36"}),
        forms=frozenset({"NFC", "NFD", "NFKC", "NFKD"}),
        rewrite=lambda text, form: unicodedata.normalize(form, text),  # type: ignore[arg-type] # `forms` holds no others
    ),
)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The two readings of one text, which are not the same."""

    text: str
    expected: list[int]  # in transformers
    found: list[int]  # in llama.cpp

    @property
    def touched(self) -> int:
        """Tokens of transformers' reading that llama.cpp's does not share at its beginning or its end."""
        start = alike.shared(self.expected, self.found)
        return max(len(self.expected) - start - alike.shared(self.expected[start:][::-1], self.found[start:][::-1]), 1)


@dataclass(frozen=True)
class Referee:
    """What tells the two engines' tokenizers apart."""

    tokenizer: Any  # transformers'
    vocabulary: llama.Vocabulary

    @property
    def _file(self) -> Path | None:
        path = Path(str(self.tokenizer.name_or_path)) / "tokenizer.json"
        return path if path.is_file() else None

    @cached_property
    def _upstream(self) -> Tokenizer | None:
        return None if self._file is None else Tokenizer.from_file(str(self._file))

    @cached_property
    def _forms(self) -> tuple[str, ...]:
        """Types of the normalizers in tokenizer.json."""
        stated = {} if self._file is None else json.loads(self._file.read_text(encoding="utf-8")).get("normalizer") or {}
        return tuple(item.get("type", "") for item in (stated, *stated.get("normalizers", ())))

    @property
    def added(self) -> dict[str, int]:
        """The added tokens of tokenizer.json."""
        return {} if self._upstream is None else {token.content: number for number, token in self._upstream.get_added_tokens_decoder().items()}

    def known(self, reading: Reading, *, special: bool) -> Known | None:
        """The known difference that accounts for this one exactly: with the text rewritten as tokenizer.json has it, llama.cpp reads what transformers does."""
        candidates = [(item, form) for item in KNOWN for form in self._forms if form in item.forms and toolchain.VERSION in item.versions]
        for item, form in candidates:
            text = item.rewrite(reading.text, form)
            if text != reading.text and self.vocabulary.tokenize(text, add_special=False, parse_special=special) == reading.expected:
                return item
        return None

    def differs(self, reading: Reading) -> str:
        """Who departs from tokenizer.json, in words that follow upon the two readings; empty where there is no such file."""
        if self._upstream is None:
            return ""
        ids = self._upstream.encode(reading.text, add_special_tokens=False).ids
        wrong = [engine for engine, found in (("transformers", reading.expected), ("llama.cpp", reading.found)) if found != ids]
        return f"; {' and '.join(wrong)} depart{'s' if len(wrong) == 1 else ''} from tokenizer.json" if wrong else ""


def remarks(found: Sequence[tuple[Reading, Known]], shown: int) -> Iterator[str]:
    """A sentence for each known difference that was met."""
    for item in dict.fromkeys(known for _, known in found):
        texts = [reading.text for reading, known in found if known is item]
        yield f"{item.name}: {item.why} (llama.cpp {toolchain.VERSION}; {len(texts)} texts, {texts[0][:shown]!r} for one)"
