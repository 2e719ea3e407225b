"""Three readings of one text, transformers', llama.cpp's and that of the upstream's own tokenizer.json: who differs, and what follows from it.

A GGUF file is wrong where llama.cpp departs from tokenizer.json, whether or not transformers does the same: the converter asks transformers, so that what one
loses the other does not have. Where transformers alone departs, the file is right, and it is the readers of safetensors repos who get other tokens.

A known difference of llama.cpp's has a name, the versions that were looked at, and an exact account of itself: how llama.cpp reads the text can be had from
tokenizer.json by one stated change. What that does not account for is unknown, and blocks. What it does is a remark as long as it touches next to none of the
evaluation text, see `BOUND`.
"""

import json
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import __version__

from config import alike
from config.words import Measurement
from engines import llama, toolchain

BESIDE = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")  # files that name tokens, which tokenizer.json need not list
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
    """The readings of one text, which are not all the same, and what follows from them."""

    text: str
    expected: list[int]  # in transformers
    found: list[int]  # in llama.cpp
    stated: list[int] | None  # by tokenizer.json; None where there is none that could judge
    known: Known | None = None  # the known difference that accounts for llama.cpp's reading

    @property
    def right(self) -> list[int]:
        """What llama.cpp should read: what tokenizer.json says, and without one what transformers reads."""
        return self.expected if self.stated is None else self.stated

    @property
    def mismatch(self) -> bool:
        """Whether the GGUF file is read otherwise than it should be, and no known difference says why."""
        return self.found != self.right and self.known is None

    @property
    def departs(self) -> bool:
        """Whether transformers is the one that departs from tokenizer.json. Where llama.cpp does too the file is wrong, which says more."""
        return self.expected != self.right and not self.mismatch

    @property
    def touched(self) -> int:
        """Tokens of the right reading that llama.cpp's does not share at its beginning or its end."""
        start = alike.shared(self.right, self.found)
        return max(len(self.right) - start - alike.shared(self.right[start:][::-1], self.found[start:][::-1]), 1)

    def said(self, shown: int) -> str:
        """The text, the tokens from the first other one on, and who departs."""
        at = alike.shared(self.right, self.found if self.mismatch or not self.departs else self.expected)
        readings = {"transformers": self.expected, "llama.cpp": self.found}
        if self.stated is not None and self.stated != self.expected:
            readings["tokenizer.json"] = self.stated
        wrong = [] if self.stated is None else [engine for engine, found in readings.items() if found != self.stated]
        departing = f"; {' and '.join(wrong)} depart{'s' if len(wrong) == 1 else ''} from tokenizer.json" if wrong else ""
        return f"{self.text[:shown]!r}: from position {at} {', '.join(f'{ids[at : at + 5]} in {engine}' for engine, ids in readings.items())}{departing}"


@dataclass(frozen=True)
class Referee:
    """What tells the tokenizers of the two engines and the upstream's tokenizer.json apart."""

    tokenizer: Any  # transformers'
    vocabulary: llama.Vocabulary

    @cached_property
    def _stated(self) -> dict[str, Any]:
        """tokenizer.json; empty where there is none."""
        return _read(self._folder / "tokenizer.json")

    @property
    def _folder(self) -> Path:
        return Path(str(self.tokenizer.name_or_path))

    @cached_property
    def _upstream(self) -> Tokenizer | None:
        """tokenizer.json as it is, with the tokens that files beside it name as well: what has a role is read as one token, listed there or not.

        None where there is no such file, or tokenizer_config.json takes back what it says, which transformers 4 heeds as well.
        """
        if not self._stated or self._taken_back():
            return None
        upstream = Tokenizer.from_file(str(self._folder / "tokenizer.json"))
        upstream.no_truncation()
        upstream.no_padding()
        listed = {token.content for token in upstream.get_added_tokens_decoder().values()}
        beside = {text for name in BESIDE for text in _texts(_read(self._folder / name))}
        for _, token in sorted(self.tokenizer.added_tokens_decoder.items()):
            # what only transformers' class makes up (GPT2Tokenizer's <|endoftext|>) is no word of the upstream's
            if token.content not in listed and (token.content in beside or upstream.token_to_id(token.content) is not None):
                upstream.add_tokens([token])
        return upstream

    def _taken_back(self) -> bool:
        config = _read(self._folder / "tokenizer_config.json")
        blank = config.get("add_prefix_space")
        return config.get("fix_mistral_regex") is True or (isinstance(blank, bool) and blank != self._puts_blank())

    def _puts_blank(self) -> bool:
        """Whether tokenizer.json puts a blank before texts."""
        cutting = _parts(self._stated.get("pre_tokenizer"), "pretokenizers")
        before = any(item.get("type") == "Prepend" for item in _parts(self._stated.get("normalizer"), "normalizers"))
        return before or any(item.get("prepend_scheme", "always" if item.get("add_prefix_space") else "never") != "never" for item in cutting)

    @cached_property
    def _forms(self) -> tuple[str, ...]:
        """Types of the normalizers in tokenizer.json."""
        return tuple(item.get("type", "") for item in _parts(self._stated.get("normalizer"), "normalizers"))

    @property
    def added(self) -> dict[str, int]:
        """The added tokens of tokenizer.json."""
        return {entry["content"]: entry["id"] for entry in self._stated.get("added_tokens", ())}

    def judge(self, text: str, expected: list[int], found: list[int], *, special: bool) -> Reading | None:
        """What follows from transformers' ids `expected` and llama.cpp's ids `found`, both without what is put around a text; None where all three agree.

        `special` reads special tokens in the text as such.
        """
        stated = None
        if self._upstream is not None:
            self._upstream.encode_special_tokens = not special
            stated = self._upstream.encode(text, add_special_tokens=False).ids
        reading = Reading(text=text, expected=expected, found=found, stated=stated)
        if reading.mismatch:
            return replace(reading, known=self._known(reading, special=special))
        return reading if reading.departs else None

    def _known(self, reading: Reading, *, special: bool) -> Known | None:
        """The known difference that accounts for this one exactly: with the text rewritten as tokenizer.json has it, llama.cpp reads what is right."""
        candidates = [(item, form) for item in KNOWN for form in self._forms if form in item.forms and toolchain.VERSION in item.versions]
        for item, form in candidates:
            text = item.rewrite(reading.text, form)
            if text != reading.text and self.vocabulary.tokenize(text, add_special=False, parse_special=special) == reading.right:
                return item
        return None


def _read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return content


def _texts(content: object) -> Iterator[str]:
    """Every text and every key in a JSON value."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, Mapping):
        yield from content
        yield from (text for value in content.values() for text in _texts(value))
    elif isinstance(content, list):
        yield from (text for value in content for text in _texts(value))


def _parts(step: Mapping[str, Any] | None, key: str) -> tuple[Mapping[str, Any], ...]:
    """A step of tokenizer.json and those that it is a sequence of."""
    return () if step is None else (step, *step.get(key, ()))


def remarks(found: Sequence[Reading], shown: int) -> Iterator[str]:
    """A sentence for each known difference that was met."""
    for item in dict.fromkeys(reading.known for reading in found):
        if item is not None:
            texts = [reading.text for reading in found if reading.known is item]
            yield f"{item.name}: {item.why} (llama.cpp {toolchain.VERSION}; {len(texts)} texts, {texts[0][:shown]!r} for one)"


def departures(name: str, found: Sequence[Reading], n: int, shown: int) -> Measurement:
    """Of `n` texts those that transformers alone reads otherwise than tokenizer.json says, told in a sentence. The GGUF file is right there; a safetensors repo
    is read by transformers, which is why its gates are for those variants.
    """
    departing = [reading for reading in found if reading.departs]
    said = [f"transformers {__version__} reads {len(departing)} of {n} texts otherwise than tokenizer.json: {departing[0].said(shown)}"] if departing else []
    return Measurement(name=name, value=len(departing), unit="count", n=n, details=tuple(said))
