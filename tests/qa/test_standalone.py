"""Measuring files of anybody's: what is not seen from outside, where `tests/acceptance/test_measure.py` looks."""

from pathlib import Path

import pytest

from builders import convert
from config.errors import MeasurementError
from qa import standalone, texts
from tests import releases
from tests.qa.conftest import DATA, Release

IM_START = 3


def windows_as_the_service_cuts_them(model: Path, gguf: Path, out: Path) -> texts.Windows:
    """Of conversations, with what stands for the measurements on anybody's files held against it."""
    chat = [DATA / "evaluation.jsonl"]
    texts.prepare(out, model=model, chat=chat, plain=[], tokens=4096, context=256)
    windows, marks = standalone._windows(gguf, text=[], chat=chat, tokens=4096, context=256, threads=1)
    prepared, expected, _ = texts.load(out, 256)
    assert (windows == prepared).all()
    assert (marks == expected).all()
    assert 0 < (marks == texts.ANSWER).mean() < 1
    return windows


def converted(model: Path, out: Path) -> Path:
    return out / str(convert.convert(out, model=model, name="odd")["file"])


def test_conversations_are_cut_and_marked_as_the_service_does_with_the_model_it_converted(clean: Release, tmp_path: Path) -> None:
    windows_as_the_service_cuts_them(clean.model, clean.gguf, tmp_path)


def test_a_bos_that_opens_turns_and_that_no_tokenizer_adds_is_left_in_its_place(tmp_path: Path) -> None:
    model = releases.clean(tmp_path / "model")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        releases.edit(model / name, bos_token="<|im_start|>")
    releases.edit(model / "tokenizer_config.json", add_bos_token=False)
    releases.edit(model / "tokenizer.json", post_processor=None)
    for name in ("config.json", "generation_config.json"):
        releases.edit(model / name, bos_token_id=IM_START)
    windows = windows_as_the_service_cuts_them(model, converted(model, tmp_path), tmp_path)
    assert windows[0, 0] == IM_START, "the first conversation keeps the beginning of its first turn"


def test_what_is_said_to_a_model_without_template_is_plain_text(tmp_path: Path) -> None:
    model = releases.base_model(tmp_path / "model")
    assert IM_START not in windows_as_the_service_cuts_them(model, converted(model, tmp_path), tmp_path)


def test_conversations_without_an_answer_are_refused(clean: Release, tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "What is the capital of France?"}]}\n' * 40, encoding="utf-8")
    with pytest.raises(MeasurementError, match="no answer to score"):
        standalone._windows(clean.gguf, text=[], chat=[path], tokens=None, context=64, threads=1)
