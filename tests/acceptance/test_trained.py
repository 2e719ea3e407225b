"""`sluice release` of a model that was trained to be quantized: the type that it was trained for is published, and measured beside the planned mix."""

import json
from pathlib import Path

import pytest
from gguf import GGUFReader

from tests import releases
from tests.acceptance.conftest import saved, sluice, small

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NAME = "tiny-chat-qat-q4_0"
NOWHERE = {"SLUICE_HUB_ENDPOINT": "http://127.0.0.1:1"}  # no Hub is there, and no token is given
PLANNED = "UD-Q4"


def recipe(folder: Path) -> Path:
    """The type that the name tells and a planned mix of its size, with a few questions."""
    found = small()
    found["variants"] = {"sixteen_bit": False, "gguf": ["Q4_0"], "dynamic": [{"tag": PLANNED, "like": "Q4_0", "rounding": False}]}
    found["evaluation"]["mmlu"]["questions_per_subject"] = 2
    found["gates"] = [gate for gate in found["gates"] if gate["name"] != "mmlu"]
    return saved(folder, found)


def test_the_type_that_it_was_trained_for_is_the_baseline_beside_the_planned_mix(tmp_path: Path) -> None:
    model, home = releases.clean(tmp_path / NAME), str(tmp_path / "home")
    done = sluice("release", model, "--to", tmp_path / "out", "--recipe", recipe(tmp_path), "--json", SLUICE_HOME=home, **NOWHERE)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["tag"]: row for row in json.loads(done.stdout)["variants"]}
    assert {tag: row["verdict"] for tag, row in rows.items()} == dict.fromkeys(("Q4_0", PLANNED), "passed")

    repo = tmp_path / "out" / f"{NAME}-GGUF"
    assert {path.name for path in repo.glob("*.gguf")} == {f"{NAME}-Q4_0.gguf", f"{NAME}-{PLANNED}.gguf", "imatrix.gguf"}
    layers = [tensor for tensor in GGUFReader(repo / f"{NAME}-Q4_0.gguf").tensors if tensor.name.startswith("blk.") and len(tensor.shape) > 1]
    assert {tensor.tensor_type.name for tensor in layers} == {"Q4_0"}
    part = (repo / "README.md").read_text(encoding="utf-8").partition("\n## Trained for Q4_0\n")[2].partition("\n## ")[0]
    assert "(quantization-aware training): its name says so" in part
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line.startswith("| ")]
    head, *told = table
    assert head == ["file", "size", "bits per weight", "mean KLD", "same top token", "MMLU", "efficiency"]
    assert [cells[0] for cells in told] == ["`Q4_0` (baseline)", f"`{PLANNED}`"]
    for tag, cells in zip(("Q4_0", PLANNED), told, strict=True):
        assert cells[3].startswith(f"{rows[tag]['kld']['mean']:.5f} ±")
        assert "—" not in cells
