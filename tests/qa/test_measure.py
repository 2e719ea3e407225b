import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from config.errors import MeasurementError
from qa import group, measure, texts
from tests.qa.conftest import DATA, ROOT, Quantize, Release

QUESTIONS: dict[str, Any] = {"mmlu": DATA / "tiny_mmlu", "form": "hendrycks", "shots": 5, "questions_per_subject": 10, "threads": 1}
PROMPTS = ["Who are you?", "What is 5 minus 2?"]
NAMES = {
    "kld.mean", "kld.median", "kld.p90", "kld.p99", "kld.p999", "kld.max", "same_top", "dp.rms", "ppl.ratio", "mmlu.accuracy", "mmlu.difference", "flips",
    "mmlu.macro", "mmlu.single_letter", "mmlu.wins", "mmlu.losses", "mmlu.mcnemar_p", "efficiency", "generation.failures", "generation.repetition",
    "file.failures",
}  # fmt: skip

ONE = {"same_top", "ppl.ratio", "mmlu.accuracy", "mmlu.macro", "mmlu.single_letter", "mmlu.mcnemar_p"}  # in a model compared with itself


@pytest.fixture(scope="module")
def windows(clean: Release, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("windows")
    texts.prepare(out, model=clean.model, chat=[DATA / "evaluation.jsonl"], plain=[], tokens=2048, context=256)
    return out


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


def measured(out: Path, clean: Release, answers: Path, windows: Path, variant: Path, **changed: Any) -> dict[str, Any]:
    group.measure(out, reference=clean.gguf, variants=[variant], windows=windows, context=changed.pop("context", 256), threads=1)
    given = {"reference": clean.gguf, "answers": answers, "diverged": out / "0.json", "variant": variant, "prompts": PROMPTS, "max_tokens": 64}
    return measure.gguf(out, **(given | QUESTIONS | changed))


def test_the_16_bit_model_is_equal_to_itself(clean: Release, answers: Path, windows: Path, tmp_path: Path) -> None:
    found = values(measured(tmp_path, clean, answers, windows, clean.gguf))
    efficiency = found.pop("efficiency")
    assert found == {name: int(name in ONE) for name in NAMES - {"efficiency"} | {"weights.failures"}}
    subjects = json.loads((tmp_path / "mmlu.json").read_text())["subjects"]
    assert len(subjects) == 8
    assert subjects["calendar"] == {"questions": 10, "accuracy": 1.0, "reference": 1.0, "wins": 0, "losses": 0}
    assert efficiency == pytest.approx(75 / (clean.gguf.stat().st_size / 1e9))


@pytest.mark.parametrize("form", ["chat", "llama"])
def test_questions_can_be_asked_as_conversations(clean: Release, windows: Path, tmp_path: Path, form: str) -> None:
    asked = {"form": form, "questions_per_subject": 2}
    measure.reference(tmp_path, gguf=clean.gguf, **(QUESTIONS | asked))
    (tmp_path / "hf").mkdir()
    measure.reference_transformers(tmp_path / "hf", model=clean.model, **(QUESTIONS | asked))
    chosen = [[answer["chosen"] for answer in json.loads((folder / "answers.json").read_text())] for folder in (tmp_path, tmp_path / "hf")]
    assert chosen[0] == chosen[1]
    found = values(measured(tmp_path, clean, tmp_path / "answers.json", windows, clean.gguf, **asked))
    assert found["flips"] == 0


def test_fewer_bits_are_worse_and_the_same_twice(clean: Release, answers: Path, windows: Path, quantize: Quantize, tmp_path: Path) -> None:
    good, bad = (measured(tmp_path, clean, answers, windows, quantize(name)) for name in ("Q8_0", "Q2_K"))
    assert 0 < 10 * values(good)["kld.mean"] < values(bad)["kld.mean"]
    assert values(good)["same_top"] > values(bad)["same_top"]
    assert bad == measured(tmp_path, clean, answers, windows, quantize("Q2_K"))


def test_a_group_says_what_each_variant_alone_would(clean: Release, windows: Path, quantize: Quantize, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(quantize("Q8_0").read_bytes()[:100_000])
    variants = [quantize("Q8_0"), damaged, quantize("Q2_K")]
    shared: dict[str, Any] = {"reference": clean.gguf, "windows": windows, "context": 256}
    assert group.measure(tmp_path, variants=variants, threads=2, **shared) == {"variants": 3}
    for position in (0, 2):
        (alone := tmp_path / f"alone-{position}").mkdir()
        group.measure(alone, variants=[variants[position]], threads=1, **shared)
        assert (alone / "0.json").read_bytes() == (tmp_path / f"{position}.json").read_bytes()
    told = group.load(tmp_path / "2.json")
    (mean,) = (item for item in told["measurements"] if item["name"] == "kld.mean")
    along = told["positions"]
    assert (along[0]["first"], along[-1]["last"], sum(part["n"] for part in along)) == (128, 254, mean["n"])
    assert sum(part["n"] * part["mean"] for part in along) / mean["n"] == pytest.approx(mean["value"])
    with pytest.raises(MeasurementError, match=r"cannot load .*damaged\.gguf"):
        group.load(tmp_path / "1.json")


def test_safetensors_are_measured_by_the_same_code(clean: Release, windows: Path, tmp_path: Path) -> None:
    measure.reference_transformers(tmp_path, model=clean.model, **QUESTIONS)
    given = {
        "reference": clean.model,
        "answers": tmp_path / "answers.json",
        "windows": windows,
        "variant": clean.model,
        "prompts": PROMPTS,
        "max_tokens": 64,
        "context": 256,
    }
    found = values(measure.transformers(tmp_path, **given, **QUESTIONS))
    assert (found["kld.mean"], found["flips"], found["mmlu.accuracy"], found["generation.failures"], found["file.failures"]) == (0, 0, 1, 0, 0)


def test_answers_that_run_on_are_counted(broken: Release, windows: Path, tmp_path: Path) -> None:
    measure.reference_transformers(tmp_path, model=broken.model, **QUESTIONS)
    given = {
        "reference": broken.model,
        "answers": tmp_path / "answers.json",
        "windows": windows,
        "variant": broken.model,
        "prompts": PROMPTS,
        "max_tokens": 32,
        "context": 256,
    }
    found = values(measure.transformers(tmp_path, **given, **QUESTIONS))
    assert found["generation.failures"] == 2


def test_windows_of_another_context_are_refused(clean: Release, answers: Path, windows: Path, tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="not of 512 tokens"):
        measured(tmp_path, clean, answers, windows, clean.gguf, context=512)


def test_gguf_variants_are_measured_without_torch() -> None:
    code = "import sys, qa.measure, qa.gates; sys.exit(bool({'torch', 'transformers'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
