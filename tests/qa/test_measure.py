import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qa import greedy, measure, mmlu
from tests.qa.conftest import DATA, ROOT, Quantize, Release

QUESTIONS: dict[str, Any] = {"mmlu": DATA / "tiny_mmlu", "form": "hendrycks", "shots": 5, "start": 0, "end": 10, "threads": 1}
PROMPTS = ["Who are you?", "What is 5 minus 2?"]
ONE = {"mmlu.accuracy", "mmlu.macro", "mmlu.single_letter", "mmlu.mcnemar_p"}  # in a model compared with itself
GREEDY = ("generation.failures", "generation.repetition", "generation.excused")
NONE = {"mmlu.difference", "flips", "flips.share", "mmlu.wins", "mmlu.losses"}


def asked(out: Path, model: Path, **changed: Any) -> list[mmlu.Answer]:
    result = measure.ask(out, model=model, **(QUESTIONS | changed))
    assert result == {"file": "answers.json", "remarks": []}
    return measure.answers(out / "answers.json")


def checked(out: Path, reference: Path, variant: Path, **changed: Any) -> dict[str, float]:
    result = greedy.check(out, **({"reference": reference, "variant": variant, "prompts": PROMPTS, "max_tokens": 64, "threads": 1} | changed))
    json.dumps(result, allow_nan=False)
    return {m["name"]: m["value"] for m in result["measurements"]}


@pytest.fixture(scope="module")
def answers(clean: Release, tmp_path_factory: pytest.TempPathFactory) -> list[mmlu.Answer]:
    return asked(tmp_path_factory.mktemp("reference"), clean.gguf)


def test_the_16_bit_model_is_equal_to_itself(clean: Release, answers: list[mmlu.Answer], tmp_path: Path) -> None:
    size = clean.gguf.stat().st_size
    found = {item.name: item.value for item in measure.scores(answers, asked(tmp_path, clean.gguf), [], size)}
    assert found.pop("efficiency") == pytest.approx(75 / (size / 1e9))
    assert found == dict.fromkeys(ONE, 1) | dict.fromkeys(NONE, 0)
    assert set(mmlu.by_subject(mmlu.encode(answers, answers))) == {answer.subject for answer in answers}
    assert checked(tmp_path, clean.gguf, clean.gguf) == dict.fromkeys((*GREEDY, "file.failures", "weights.failures"), 0)


def test_questions_asked_in_two_parts_are_those_asked_at_once(clean: Release, answers: list[mmlu.Answer], tmp_path: Path) -> None:
    parts = [*asked(tmp_path, clean.gguf, end=4), *asked(tmp_path, clean.gguf, start=4)]
    assert sorted(parts, key=str) == sorted(answers, key=str)


def test_how_often_questions_may_be_looked_at(tmp_path: Path) -> None:
    bank = {"mmlu": DATA / "tiny_mmlu", "shots": 5}
    assert measure.questions(tmp_path, **bank, questions_per_subject=10, most=40) == {"subjects": 8, "looks": [10, 20, 40]}
    assert measure.questions(tmp_path, **bank, questions_per_subject=30, most=1000)["looks"] == [30, 60, 100], "each subject has 100"
    assert measure.questions(tmp_path, **bank, questions_per_subject=None, most=None)["looks"] == [100]
    assert measure.questions(tmp_path, **bank, questions_per_subject=70, most=280)["looks"] == [70], "less than half as many more are not worth a look"


@pytest.mark.parametrize("form", ["chat", "llama"])
def test_questions_can_be_asked_as_conversations(clean: Release, tmp_path: Path, form: str) -> None:
    chosen = [[answer.chosen for answer in asked(tmp_path, model, form=form, end=2)] for model in (clean.gguf, clean.model)]
    assert len(chosen[0]) == 16
    assert chosen[0] == chosen[1]


def test_a_variant_is_measured_the_same_twice(clean: Release, answers: list[mmlu.Answer], quantize: Quantize, tmp_path: Path) -> None:
    good, bad, again = (asked(tmp_path, quantize(name)) for name in ("Q8_0", "Q2_K", "Q2_K"))
    assert bad == again
    efficiency = [measure.scores(answers, given, [], quantize(name).stat().st_size)[-1].value for given, name in ((good, "Q8_0"), (bad, "Q2_K"))]
    assert efficiency[0] < efficiency[1], "as good as all questions need, in fewer bytes"
    assert checked(tmp_path, clean.gguf, quantize("Q2_K")) == checked(tmp_path, clean.gguf, quantize("Q2_K"))


def test_safetensors_are_measured_by_the_same_code(clean: Release, answers: list[mmlu.Answer], tmp_path: Path) -> None:
    assert [answer.chosen for answer in asked(tmp_path, clean.model)] == [answer.chosen for answer in answers]
    assert checked(tmp_path, clean.model, clean.model) == dict.fromkeys((*GREEDY, "file.failures"), 0)


def test_answers_that_run_on_are_counted(broken: Release, tmp_path: Path) -> None:
    assert checked(tmp_path, broken.model, broken.model, max_tokens=32)["generation.failures"] == 2


def test_gguf_variants_are_measured_without_torch() -> None:
    code = "import sys, qa.measure, qa.greedy, qa.gates; sys.exit(bool({'torch', 'transformers'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
