"""Real trained models from their folders to repos in folders, under the usual gates: SmolLM2-135M-Instruct, and Gemma 3 270M, a base model."""

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.models.gemma import gemma3_270m
from bench.models.real import smollm2
from config.errors import ToolError
from tests.acceptance.conftest import ROOT, saved, sluice

NAME, GEMMA = "SmolLM2-135M-Instruct", "gemma-3-270m"
DATA = ROOT / "demo" / "data"


def fetched(write: Callable[[Path], None], folder: Path) -> Path:
    """The owners' folder of a model."""
    try:
        write(folder)
    except ToolError as error:
        pytest.skip(str(error))
    return folder


def verdicts(found: Mapping[str, Any]) -> dict[str, tuple[str, list[str]]]:
    """Of each variant, with the reasons; none is waived."""
    assert all(not row.get("waivers") for row in found["variants"])
    return {row["tag"]: (row["verdict"], row["reasons"]) for row in found["variants"]}


def recipe(folder: Path) -> Path:
    """Every stage that stock mixes need, once, on little text."""
    said = {
        "name": "small",
        "variants": {"gguf": ["Q8_0", "Q4_K_M"], "sixteen_bit": False},
        "calibration": {"chat": [str(DATA / "calibration.jsonl")], "tokens": 4000},
        "evaluation": {
            "divergence": {"chat": [str(DATA / "evaluation.jsonl")], "tokens": 4000, "most_tokens": 4000},
            # greedily the 16-bit model itself runs in circles at the first
            "generation": {"prompts": ["What is the capital of France?", "Why is the sky blue?", "List three fruits."], "max_tokens": 512},
        },
    }
    return saved(folder, said)


@pytest.mark.slow
@pytest.mark.alone
def test_8_bits_pass_the_usual_gates_and_it_takes_what_was_estimated_within_a_factor_of_two(tmp_path: Path) -> None:
    model = fetched(smollm2, tmp_path / "model")
    command = ("release", model, "--name", NAME, "--to", tmp_path / "out", "--recipe", recipe(tmp_path), "--json")
    # a cache of its own: the machine's speed is measured now, with nothing beside it, and so on all of it
    home = {"SLUICE_HOME": str(tmp_path / "home"), "SLUICE_CACHE": str(tmp_path / "cache"), "SLUICE_THREADS": str(os.cpu_count())}
    estimate: dict[str, Any] = json.loads(sluice(*command, "--dry-run", **home).stdout)
    started = time.perf_counter()
    done = sluice(*command, **home)
    took = time.perf_counter() - started
    assert done.returncode in {0, 3}, done.stderr
    assert verdicts(json.loads(done.stdout))["Q8_0"] == ("passed", [])
    assert (tmp_path / "out" / f"{NAME}-GGUF" / f"{NAME}-Q8_0.gguf").is_file()
    assert 0.5 < estimate["seconds"] / took < 2, f"estimated {estimate['seconds']:.0f} s, took {took:.0f} s"


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_base_model_passes_the_usual_gates_in_8_bits_and_not_in_float16_which_cannot_hold_it(tmp_path: Path) -> None:
    """Of 262,144 tokens, one of which has no row, with layers that see 512 tokens back, and activations beyond 65,504."""
    model = fetched(gemma3_270m, tmp_path / "model")
    text = {"plain": [str(DATA / "evaluation_questions.txt")], "tokens": 2000, "most_tokens": 2000}
    said = {
        "name": "base",
        "variants": {"gguf": ["Q8_0", "F16"], "sixteen_bit": False},
        "calibration": {"plain": [str(DATA / "calibration_questions.txt")], "tokens": 2000},
        "evaluation": {"divergence": text},
    }
    done = sluice("release", model, "--name", GEMMA, "--to", tmp_path / "out", "--recipe", saved(tmp_path, said), "--json", SLUICE_HOME=str(tmp_path / "home"))
    assert done.returncode == 3, done.stderr
    found = verdicts(json.loads(done.stdout))
    assert found["Q8_0"] == ("passed", [])
    assert found["F16"][0] == "failed"
    assert any("float16" in reason for reason in found["F16"][1])
    assert [path.name for path in (tmp_path / "out" / f"{GEMMA}-GGUF").glob(f"{GEMMA}-*.gguf")] == [f"{GEMMA}-Q8_0.gguf"]
