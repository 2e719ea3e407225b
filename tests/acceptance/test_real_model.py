"""A real trained model, SmolLM2-135M-Instruct, from its folder to repos in folders: Q8_0 passes, and it takes about as long as was said before."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from bench.models.real import smollm2
from config.errors import ToolError
from tests.acceptance.conftest import ROOT, saved, sluice

NAME = "SmolLM2-135M-Instruct"
DATA = ROOT / "demo" / "data"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    try:
        smollm2(folder)
    except ToolError as error:
        pytest.skip(str(error))
    return folder


def recipe(folder: Path) -> Path:
    """Every stage that stock mixes need, once, on little text, under the usual gates."""
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
def test_8_bits_pass_the_usual_gates_and_it_takes_what_was_estimated_within_a_factor_of_two(model: Path, tmp_path: Path) -> None:
    command = ("release", model, "--name", NAME, "--to", tmp_path / "out", "--recipe", recipe(tmp_path), "--json")
    # a cache of its own: the machine's speed is measured now, with nothing beside it, and so on all of it
    home = {"SLUICE_HOME": str(tmp_path / "home"), "SLUICE_CACHE": str(tmp_path / "cache"), "SLUICE_THREADS": str(os.cpu_count())}
    estimate: dict[str, Any] = json.loads(sluice(*command, "--dry-run", **home).stdout)
    started = time.perf_counter()
    done = sluice(*command, **home)
    took = time.perf_counter() - started
    assert done.returncode in {0, 3}, done.stderr
    found = json.loads(done.stdout)
    verdicts = {row["tag"]: (row["verdict"], row["reasons"]) for row in found["variants"]}
    assert verdicts["Q8_0"] == ("passed", [])
    assert all(not row.get("waivers") for row in found["variants"])
    assert (tmp_path / "out" / f"{NAME}-GGUF" / f"{NAME}-Q8_0.gguf").is_file()
    assert 0.5 < estimate["seconds"] / took < 2, f"estimated {estimate['seconds']:.0f} s, took {took:.0f} s"
