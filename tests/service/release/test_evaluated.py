"""Only answers to all questions of a benchmark are its results: no samples, no questions that were left out, nothing of the operator's own."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from config.facts import Facts
from config.recipe import Recipe
from config.words import Kind, Measurement, Outcome, Release, Verdict
from publishers.card import Card, Method, Row
from service.execution.kept import Output
from service.release import kinds
from service.release.evaluated import results
from service.release.products import DATA
from service.release.work import Work

ACCURACY = Measurement(name="mmlu.accuracy", value=0.5, unit="share", stderr=0.01, n=800)
SOURCE = {"use": "evaluation.mmlu", "name": "owner/mmlu/all", "sha256": "a" * 64, "repo": "owner/mmlu", "commit": "c" * 40, "path": "all", "task": "tiny"}


def row(tag: str, size: int, accuracy: Measurement = ACCURACY) -> Row:
    verdict = Verdict(tag=tag, outcome=Outcome.PASSED, reasons=(), results=())
    return Row(tag=tag, file=f"m-{tag}.gguf", bytes=size, bpw=4.0, measurements={"mmlu.accuracy": accuracy}, verdict=verdict)


def card(*rows: Row, **changes: Any) -> Card:
    fields: dict[str, Any] = {
        "form": kinds.every()[Kind.GGUF].form, "repo": "ours/m-GGUF", "namespace": "ours", "release": Release(repo="up/m", sha="a" * 40), "facts": Facts(),
        "rows": rows, "blocked": (), "patches": (), "tools": {}, "sampling": {}, "recipe_name": "own", "recipe_digest": "b" * 64,
        "method": Method(texts=(), tokens=1, windows=1, context=512, questions=800, shots=5, prompts=1),
    }  # fmt: skip
    return Card(**(fields | changes))


@pytest.fixture
def work(recipe: Callable[..., Recipe], tmp_path: Any) -> Callable[..., Work]:
    def make(source: Mapping[str, Any] = SOURCE, **asked: Any) -> Work:
        made = recipe()
        mmlu = None if made.evaluation.mmlu is None else made.evaluation.mmlu.model_copy(update=asked)
        made = made.model_copy(update={"evaluation": made.evaluation.model_copy(update={"mmlu": mmlu})})
        job = type("Job", (), {"recipe": made, "within": ""})()
        found = Output(key="k", folder=tmp_path, result={"sources": [dict(source)]}, files=(), seconds=0)
        return Work(job=job, api=None, graph=None, products={DATA: found})  # type: ignore[arg-type]

    return make


def test_every_variant_that_answered_all_questions_is_named_smallest_first(work: Callable[..., Work]) -> None:
    found = results(work(), card(row("Q8_0", 8), row("Q4_0", 4)))
    assert [item.file for item in found] == ["m-Q4_0.gguf", "m-Q8_0.gguf"]
    assert {(item.dataset, item.revision, item.task, item.asked, item.source) for item in found} == {
        ("owner/mmlu", "c" * 40, "tiny", "5-shot, hendrycks prompt", "https://huggingface.co/ours/m-GGUF")
    }


def test_a_hub_without_a_lasting_address_is_no_source(work: Callable[..., Work]) -> None:
    assert [item.source for item in results(work(), card(row("Q4_0", 4), hub=None))] == [None]


@pytest.mark.parametrize(
    ("source", "asked", "changes"),
    [
        pytest.param(SOURCE, {"questions_per_subject": 50}, {}, id="a sample"),
        pytest.param(SOURCE, {}, {"quick": True}, id="marked as small"),
        pytest.param({name: value for name, value in SOURCE.items() if name != "task"}, {}, {}, id="no benchmark"),
        pytest.param({"use": "evaluation.mmlu", "name": "mine", "sha256": "a" * 64}, {}, {}, id="the operator's own"),
    ],
)
def test_what_is_no_result_of_a_benchmark_is_not_said(work: Callable[..., Work], source: Any, asked: Any, changes: Any) -> None:
    assert results(work(source, **asked), card(row("Q4_0", 4), **changes)) == []


def test_nor_what_left_out_questions(work: Callable[..., Work]) -> None:
    short = Measurement(name="mmlu.accuracy", value=0.5, unit="share", n=790, details=("10 questions were left out",))
    assert [item.file for item in results(work(), card(row("Q4_0", 4, short), row("Q8_0", 8)))] == ["m-Q8_0.gguf"]
