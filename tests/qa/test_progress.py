"""Every measurement that can be long reports how far it has come, in its unit and to the end."""

from pathlib import Path
from typing import Any

import pytest

from engines import spoken
from qa import activations, conversations, greedy, group, measure, parity, sanity, templates, texts
from tests.heard import hearing, whole
from tests.qa.conftest import DATA, Quantize, Release

TEXTS = [DATA / "evaluation.jsonl", DATA / "evaluation_questions.txt"]
QUESTIONS: dict[str, Any] = {"mmlu": DATA / "tiny_mmlu", "form": "hendrycks", "shots": 5, "start": 0, "end": 20, "threads": 1}


def test_a_group_tells_windows(clean: Release, quantize: Quantize, tmp_path: Path) -> None:
    given = {"chat": [DATA / "evaluation.jsonl"], "plain": [DATA / "evaluation_questions.txt"]}
    texts.prepare(tmp_path, model=clean.model, tokens=1024, most_tokens=2048, context=256, **given)
    shared: dict[str, Any] = {"windows": tmp_path, "context": 256, "threads": 1}
    (tmp_path / "out").mkdir()
    with hearing() as found:
        group.measure(tmp_path / "out", reference=clean.gguf, variants=[quantize("Q8_0"), quantize("Q2_K")], **shared)
    assert whole(found, "windows") == [8]
    assert whole(found, "bytes") == [file.stat().st_size for file in (clean.gguf, quantize("Q8_0"), quantize("Q2_K"))], "the files that are loaded"
    with hearing() as found:
        group.measure_transformers(tmp_path / "out", reference=clean.model, variant=clean.model, **shared)
    assert whole(found, "windows") == [8]


def test_parity_tells_texts_and_windows(clean: Release, tmp_path: Path) -> None:
    with hearing() as found:
        parity.compare(tmp_path, model=clean.model, gguf=clean.gguf, texts=TEXTS, threads=1)
    assert whole(found, "windows") == [8]
    assert max(item.done for item in found if item.unit == "texts") > 100


def test_activations_tell_windows_and_then_tensors(clean: Release, tmp_path: Path) -> None:
    with hearing() as found:
        activations.check(tmp_path, model=clean.model, texts=TEXTS, threads=1)
    assert whole(found, "windows") == [16]
    assert whole(found, "tensors")[-1] == 38


@pytest.mark.parametrize("engine", ["gguf", "model"])
def test_questions_are_told_within_a_subject(clean: Release, tmp_path: Path, engine: str) -> None:
    with hearing() as found:
        measure.ask(tmp_path, model=getattr(clean, engine), **QUESTIONS)
    assert whole(found, "questions") == [160]
    assert len({item.done for item in found if item.unit == "questions"}) > 8 + 1, "not only after each of the eight subjects"


def test_a_check_tells_tokens_of_its_answers_and_tensors_of_the_file(clean: Release, quantize: Quantize, tmp_path: Path) -> None:
    prompts = ["Who are you?", "What is 5 minus 2?"]
    with hearing() as found:
        greedy.check(tmp_path, reference=clean.gguf, variant=quantize("Q8_0"), prompts=prompts, max_tokens=64, threads=1)
    assert whole(found, "tokens") == [128]
    assert len({item.done for item in found if item.unit == "tokens"}) > 4
    assert whole(found, "tensors") == [38]


def test_templates_tell_conversations_and_texts(clean: Release, tmp_path: Path) -> None:
    with hearing() as found:
        templates.check(tmp_path, model=clean.model, gguf=clean.gguf, threads=1)
    assert whole(found, "conversations")
    assert whole(found, "texts")


def test_conversations_are_told_as_they_are_rendered(clean: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered: list[int] = []
    with hearing() as found:
        monkeypatch.setattr(spoken, "tried", lambda render, messages: rendered.append(found[-1].done) or (messages, ""))
        conversations.check(tmp_path, model=clean.model, chat=TEXTS[:1])
    assert whole(found, "conversations") == [len(rendered)]
    assert rendered == list(range(len(rendered)))


def test_sanity_tells_prompts(clean: Release, tmp_path: Path) -> None:
    with hearing() as found:
        sanity.check(tmp_path, model=clean.model, prompts=["Who are you?", "Hello"], max_tokens=8, threads=1)
    assert found[-1].done == found[-1].total == 2
