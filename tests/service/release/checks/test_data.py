"""Data that a stage could not use are found by their first lines."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from config.recipe import Recipe
from service.release.checks import data
from service.release.prospect import Prospect
from tests.service.release.conftest import DATA, RECIPE

MakeProspect = Callable[..., Prospect]
GOOD = '{"messages": [{"role": "user", "content": "Hi"}]}\n'


def said(prospect: MakeProspect, recipe: Callable[..., Recipe], **parts: Any) -> list[str]:
    return list(data.unusable(prospect(recipe=recipe(**parts))))


def test_the_bundled_data_are_fine(prospect: MakeProspect, recipe: Callable[..., Recipe]) -> None:
    assert said(prospect, recipe, calibration={"chat": [DATA / "calibration.jsonl"], "plain": [DATA / "calibration_questions.txt"]}) == []


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("hello\n", "line 1, is not a conversation"),
        (GOOD + '{"text": "hello"}\n', "line 2, is not a conversation"),
        ('{"messages": []}\n', "line 1, has no list of messages"),
        (GOOD + '\n{"messages": []}\n', "line 3, has no list of messages"),
        ('{"messages": "hello"}\n', "line 1, is not a conversation"),
        ('{"messages": [{"content": "hello"}]}\n', "line 1, has no list of messages"),
        ("\xff", "is not UTF-8 text"),
        ("", "empty, and the recipe names nothing else under `calibration`"),
    ],
)
def test_conversations(prospect: MakeProspect, recipe: Callable[..., Recipe], tmp_path: Path, lines: str, words: str) -> None:
    path = tmp_path / "chat.jsonl"
    path.write_bytes(lines.encode("latin-1"))
    (sentence,) = said(prospect, recipe, calibration={"chat": [path]})
    assert str(path) in sentence
    assert words in sentence


def test_only_the_first_lines_are_read(prospect: MakeProspect, recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    path = tmp_path / "chat.jsonl"
    path.write_text(GOOD * data.LINES + "not JSON\n")
    assert said(prospect, recipe, calibration={"chat": [path]}) == []


@pytest.mark.parametrize(("content", "words"), [(b"\xff\xfeh\x00", "is not UTF-8 text"), (b" \n", "empty"), (None, "cannot be read")])
def test_plain_text(prospect: MakeProspect, recipe: Callable[..., Recipe], tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "plain.txt"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    (sentence,) = said(prospect, recipe, evaluation={**RECIPE["evaluation"], "divergence": {"plain": [path]}})
    assert str(path) in sentence
    assert words in sentence


def test_a_character_may_lie_across_the_end_of_what_is_read(prospect: MakeProspect, recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    path = tmp_path / "plain.txt"
    path.write_text("x" * (data.BYTES - 1) + "é" * 10, encoding="utf-8")
    assert said(prospect, recipe, calibration={"plain": [path]}) == []


def test_an_empty_file_beside_others_does_no_harm(prospect: MakeProspect, recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    assert said(prospect, recipe, calibration={"plain": [tmp_path / "empty.txt", DATA / "calibration_questions.txt"]}) == []


def test_questions(prospect: MakeProspect, recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    (sentence,) = said(prospect, recipe, evaluation={**RECIPE["evaluation"], "mmlu": {"data": tmp_path}})
    assert "holds no questions" in sentence
