"""The prompts of our own: enough of them, of many kinds, and none for calibration like one for evaluation."""

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest

from config.errors import ConfigurationError
from config.prompt import OPENINGS, PROMPTS, openings, prompts

ALIKE = 0.3  # of the runs of characters in either are in both: none of the pairs here has more than 0.28
PIECE = 5  # characters
WRITING = {  # by language letters and words that no other language here has
    "English": r"\bthe\b", "German": r"\b(und|der|Warum)\b", "French": r"\b(les|Écris|est)\b", "Spanish": r"[¿ñ]|\buna\b",
    "Italian": r"\b(della|alla|Perché|Spiega|Spiegami|Scrivi|Quali)\b", "Portuguese": r"ã|\b(foi|Conte|Explique a)\b|faço", "Russian": r"[\u0400-\u04ff]",
    "Chinese": r"[请们这为写]", "Japanese": r"[\u3040-\u30ff]", "Korean": r"[\uac00-\ud7af]", "Arabic": r"[\u0600-\u06ff]", "Hindi": r"[\u0900-\u097f]",
}  # fmt: skip


def everything(part: str) -> Iterator[str]:
    """What users say, system messages aside, and openings, one text each."""
    for prompt in prompts(PROMPTS, part):  # type: ignore[arg-type] # the test's own words
        yield from prompt.turns
    yield from openings(PROMPTS, part)  # type: ignore[arg-type]


def pieces(text: str) -> set[str]:
    letters = re.sub(r"\W+", " ", text.casefold()).strip()
    return {letters[i : i + PIECE] for i in range(max(1, len(letters) - PIECE + 1))}


def alike(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other)


def test_no_prompt_for_evaluation_is_like_one_for_calibration() -> None:
    sets = {part: [(text, pieces(text)) for text in everything(part)] for part in OPENINGS}
    near = [
        (alike(one, other), text, second)
        for text, one in sets["calibration"]
        for second, other in sets["evaluation"]
        if min(len(one), len(other)) > 3 and alike(one, other) > ALIKE
    ]
    assert near == []
    assert not {text for text, _ in sets["calibration"]} & {text for text, _ in sets["evaluation"]}


def test_a_prompt_that_is_only_turned_round_would_be_found() -> None:
    said = next(everything("calibration"))
    assert alike(pieces(said), pieces(f"Please tell me: {said.upper()}!")) > ALIKE


@pytest.mark.parametrize("part", OPENINGS)
def test_no_prompt_is_said_twice(part: str) -> None:
    texts = [(text, pieces(text)) for text in everything(part)]
    assert [(one, two) for (one, first), (two, second) in combinations(texts, 2) if min(len(first), len(second)) > 8 and alike(first, second) > ALIKE] == []


@pytest.mark.parametrize(("part", "most", "least"), [("calibration", 200, 40), ("evaluation", 100, 30)])
def test_there_are_prompts_of_every_kind(part: str, most: int, least: int) -> None:
    found = prompts(PROMPTS, part)  # type: ignore[arg-type]
    assert len(found) >= most
    assert len(openings(PROMPTS, part)) >= least  # type: ignore[arg-type]
    assert sum(len(prompt.turns) > 1 for prompt in found) >= 6
    assert sum(bool(prompt.tools) for prompt in found) >= 4
    assert sum(prompt.system is not None for prompt in found) >= 5
    assert sum("```" in turn for prompt in found for turn in prompt.turns) >= 2
    lengths = [len(turn) for prompt in found for turn in prompt.turns]
    assert min(lengths) < 20
    assert max(lengths) > 600
    for language, mark in WRITING.items():
        assert sum(bool(re.search(mark, prompt.turns[0])) for prompt in found) >= 2, language


def test_tools_are_written_as_templates_take_them() -> None:
    for part in OPENINGS:
        for tool in (tool for prompt in prompts(PROMPTS, part) for tool in prompt.tools):
            assert tool["type"] == "function"
            properties = tool["function"]["parameters"]["properties"]
            assert set(tool["function"]["parameters"]["required"]) <= set(properties)


def test_a_line_that_is_no_prompt_is_named(tmp_path: Path) -> None:
    (tmp_path / "calibration.jsonl").write_text(json.dumps({"turns": ["Hi"]}) + "\n" + json.dumps({"turn": "Hi"}) + "\n")
    with pytest.raises(ConfigurationError, match=r"calibration\.jsonl, line 2: .*turn"):
        prompts(tmp_path, "calibration")
