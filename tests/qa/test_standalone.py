"""Measuring files of anybody's: what is not seen from outside, where `tests/acceptance/test_measure.py` looks."""

from pathlib import Path

import pytest

from config.errors import MeasurementError
from qa import standalone, texts
from tests.qa.conftest import DATA, Release


def test_conversations_are_cut_and_marked_as_the_service_does_with_the_model_it_converted(clean: Release, tmp_path: Path) -> None:
    chat = [DATA / "evaluation.jsonl"]
    texts.prepare(tmp_path, model=clean.model, chat=chat, plain=[], tokens=4096, context=256)
    windows, marks = standalone._windows(clean.gguf, text=[], chat=chat, tokens=4096, context=256, threads=1)
    prepared, expected, _ = texts.load(tmp_path, 256)
    assert (windows == prepared).all()
    assert (marks == expected).all()
    assert 0 < (marks == texts.ANSWER).mean() < 1


def test_conversations_without_an_answer_are_refused(clean: Release, tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "What is the capital of France?"}]}\n' * 40, encoding="utf-8")
    with pytest.raises(MeasurementError, match="no answer to score"):
        standalone._windows(clean.gguf, text=[], chat=[path], tokens=None, context=64, threads=1)
