"""`sluice release` of a model whose experts are stored in MXFP4: published in upstream's own bits, and measured against what these are multiplied out to."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests import mxfp4
from tests.acceptance.conftest import ROOT, saved, sluice

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NAME = "tiny-oss-qat"  # which says that it was trained to be quantized, and not for which type
DATA = ROOT / "demo" / "data"
NOWHERE = {"SLUICE_HUB_ENDPOINT": "http://127.0.0.1:1"}  # no Hub is there, and no token is given
GATES = (
    {"name": "file", "measure": "file.failures", "at_most": 0},
    {"name": "weights", "measure": "weights.failures", "at_most": 0},
    # nothing is rounded but activations, to the 8 bits with which llama.cpp multiplies MXFP4
    {"name": "divergence", "measure": "kld.mean", "at_most": 0.02, "tags": ["MXFP4"]},
)


def recipe(folder: Path) -> Path:
    """MXFP4 and one mix beside it, with as little text as there may be."""
    found: dict[str, Any] = {"name": "stored", "fixes": "auto", "gates": list(GATES)}
    found["variants"] = {"sixteen_bit": False, "gguf": ["MXFP4", "Q8_0"]}
    found["calibration"] = {"plain": [str(DATA / "calibration_questions.txt")], "tokens": 2000}
    found["evaluation"] = {
        "divergence": {"plain": [str(DATA / "evaluation_questions.txt")], "tokens": 1000},
        "context": 128,
        "generation": {"prompts": ["What is the capital of France?"], "max_tokens": 8},
    }
    return saved(folder, found)


def test_upstreams_own_bits_are_published(tmp_path: Path) -> None:
    model, home = mxfp4.upstream(tmp_path / NAME), str(tmp_path / "home")
    done = sluice("release", model, "--to", tmp_path / "out", "--recipe", recipe(tmp_path), "--json", SLUICE_HOME=home, **NOWHERE)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["tag"]: row for row in json.loads(done.stdout)["variants"]}
    assert {tag: row["verdict"] for tag, row in rows.items()} == dict.fromkeys(("MXFP4", "Q8_0"), "passed")

    repo = tmp_path / "out" / f"{NAME}-GGUF"
    file = repo / f"{NAME}-MXFP4.gguf"
    mxfp4.require_bits(file, model)
    assert rows["MXFP4"]["bytes"] == file.stat().st_size
    assert 0 <= rows["MXFP4"]["kld"]["mean"] < 0.02
    judged = json.loads(sluice("gates", str(json.loads(done.stdout)["run"]), "--json", SLUICE_HOME=home).stdout)["variants"]
    outcomes = {item["tag"]: {gate["gate"]: gate["outcome"] for gate in item["gates"]} for item in judged}
    assert outcomes["MXFP4"] == {"file": "passed", "weights": "passed", "divergence": "passed"}
    card = (repo / "README.md").read_text(encoding="utf-8")
    (row,) = [line for line in card.partition("\n## Measured\n")[2].partition("\n## ")[0].splitlines() if line.startswith("| `MXFP4` |")]
    assert f"| {rows['MXFP4']['kld']['mean']:.5f} ±" in row
    assert "Weights in MXFP4 were multiplied out to bfloat16, from which the files here are made, but for `MXFP4`, which holds the upstream's own bits." in card
    assert "\n## Trained to be quantized\n" in card
