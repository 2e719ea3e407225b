import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qa import measure
from tests.qa.conftest import DATA, ROOT, Quantize, Release

QUESTIONS: dict[str, Any] = {"mmlu": DATA / "tiny_mmlu", "form": "hendrycks", "shots": 5, "questions_per_subject": 10, "threads": 1}
PROMPTS = ["Who are you?", "What is 5 minus 2?"]
NAMES = {
    "mmlu.accuracy", "mmlu.difference", "flips",
    "mmlu.macro", "mmlu.single_letter", "mmlu.wins", "mmlu.losses", "mmlu.mcnemar_p", "efficiency", "generation.failures", "generation.repetition",
    "file.failures",
}  # fmt: skip

ONE = {"mmlu.accuracy", "mmlu.macro", "mmlu.single_letter", "mmlu.mcnemar_p"}  # in a model compared with itself


@pytest.fixture(scope="module")
def answers(clean: Release, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reference")
    result = measure.reference(out, gguf=clean.gguf, **QUESTIONS)
    assert result["mmlu"] == {"accuracy": 1.0, "stderr": pytest.approx(0.0123, abs=1e-4), "n": 80}
    return out / "answers.json"


def values(result: dict[str, Any]) -> dict[str, float]:
    json.dumps(result, allow_nan=False)
    assert {m["name"] for m in result["measurements"]} - {"weights.failures"} == NAMES  # which only GGUF files are checked for
    return {m["name"]: m["value"] for m in result["measurements"]}


def measured(out: Path, clean: Release, answers: Path, variant: Path, **changed: Any) -> dict[str, Any]:
    given = {"reference": clean.gguf, "answers": answers, "variant": variant, "prompts": PROMPTS, "max_tokens": 64}
    return measure.gguf(out, **(given | QUESTIONS | changed))


def test_the_16_bit_model_is_equal_to_itself(clean: Release, answers: Path, tmp_path: Path) -> None:
    found = values(measured(tmp_path, clean, answers, clean.gguf))
    efficiency = found.pop("efficiency")
    assert found == {name: int(name in ONE) for name in NAMES - {"efficiency"} | {"weights.failures"}}
    subjects = json.loads((tmp_path / "mmlu.json").read_text())["subjects"]
    assert len(subjects) == 8
    assert subjects["calendar"] == {"questions": 10, "accuracy": 1.0, "reference": 1.0, "wins": 0, "losses": 0}
    assert efficiency == pytest.approx(75 / (clean.gguf.stat().st_size / 1e9))


@pytest.mark.parametrize("form", ["chat", "llama"])
def test_questions_can_be_asked_as_conversations(clean: Release, tmp_path: Path, form: str) -> None:
    asked = {"form": form, "questions_per_subject": 2}
    measure.reference(tmp_path, gguf=clean.gguf, **(QUESTIONS | asked))
    (tmp_path / "hf").mkdir()
    measure.reference_transformers(tmp_path / "hf", model=clean.model, **(QUESTIONS | asked))
    chosen = [[answer["chosen"] for answer in json.loads((folder / "answers.json").read_text())] for folder in (tmp_path, tmp_path / "hf")]
    assert chosen[0] == chosen[1]
    found = values(measured(tmp_path, clean, tmp_path / "answers.json", clean.gguf, **asked))
    assert found["flips"] == 0


def test_a_variant_is_measured_the_same_twice(clean: Release, answers: Path, quantize: Quantize, tmp_path: Path) -> None:
    good, bad = (measured(tmp_path, clean, answers, quantize(name)) for name in ("Q8_0", "Q2_K"))
    assert values(good)["efficiency"] < values(bad)["efficiency"], "as good as all questions need, in fewer bytes"
    assert bad == measured(tmp_path, clean, answers, quantize("Q2_K"))


def test_safetensors_are_measured_by_the_same_code(clean: Release, tmp_path: Path) -> None:
    measure.reference_transformers(tmp_path, model=clean.model, **QUESTIONS)
    given = {
        "reference": clean.model,
        "answers": tmp_path / "answers.json",
        "variant": clean.model,
        "prompts": PROMPTS,
        "max_tokens": 64,
    }
    found = values(measure.transformers(tmp_path, **given, **QUESTIONS))
    assert (found["flips"], found["mmlu.accuracy"], found["generation.failures"], found["file.failures"]) == (0, 1, 0, 0)


def test_answers_that_run_on_are_counted(broken: Release, tmp_path: Path) -> None:
    measure.reference_transformers(tmp_path, model=broken.model, **QUESTIONS)
    given = {
        "reference": broken.model,
        "answers": tmp_path / "answers.json",
        "variant": broken.model,
        "prompts": PROMPTS,
        "max_tokens": 32,
    }
    found = values(measure.transformers(tmp_path, **given, **QUESTIONS))
    assert found["generation.failures"] == 2


def test_gguf_variants_are_measured_without_torch() -> None:
    code = "import sys, qa.measure, qa.gates; sys.exit(bool({'torch', 'transformers'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
