"""`sluice release` by a recipe that wants no layers for multi-token prediction: no GGUF file has the model's one, or announces it, and the card says so."""

import json
from pathlib import Path

import pytest
from gguf import GGUFReader

from tests import predicting
from tests.acceptance.conftest import saved, sluice, small

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NOWHERE = {"SLUICE_HUB_ENDPOINT": "http://127.0.0.1:1"}  # no Hub is there, and no token is given
FILES = ["BF16", "Q4_K_M", "UD-Q4_K_XL"]


def recipe(folder: Path) -> Path:
    """What weights are in the way to every kind of GGUF file; a random model is measured for nothing else."""
    found = small()
    planned = [{"tag": "UD-Q4_K_XL", "rounding": False}]
    found["variants"] = {"sixteen_bit": False, "gguf": ["BF16", "Q4_K_M"], "dynamic": planned, "multi_token_prediction": False}
    found["calibration"]["tokens"] = 2000
    found["evaluation"]["divergence"]["tokens"] = 2000
    found["evaluation"]["mmlu"] = None
    found["gates"] = [gate for gate in found["gates"] if gate["name"] in {"importance matrix", "file", "weights"}]
    found["gates"] += [{"name": "metadata", "measure": "metadata.failures", "at_most": 0, "scope": "release"}]
    return saved(folder, found)


def test_no_gguf_file_has_a_layer_that_the_recipe_leaves_out(tmp_path: Path) -> None:
    model, home = predicting.glm(tmp_path / "drafting"), str(tmp_path / "home")
    layers = json.loads((model / "config.json").read_bytes())["num_hidden_layers"]
    done = sluice("release", model, "--to", tmp_path / "out", "--recipe", recipe(tmp_path), "--json", SLUICE_HOME=home, **NOWHERE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {row["tag"]: row["verdict"] for row in json.loads(done.stdout)["variants"]} == dict.fromkeys(FILES, "passed")

    repo = tmp_path / "out" / "drafting-GGUF"
    for tag in FILES:
        reader = GGUFReader(repo / f"drafting-{tag}.gguf")
        fields = {name.partition(".")[2]: field.contents() for name, field in reader.fields.items()}
        assert fields["block_count"] == layers, tag
        assert "nextn_predict_layers" not in fields, tag
        assert {int(tensor.name.split(".")[1]) for tensor in reader.tensors if tensor.name.startswith("blk.")} == {*range(layers)}, tag
    card = (repo / "README.md").read_text(encoding="utf-8")
    assert "- The upstream's layers for multi-token prediction (NextN) are left out of every GGUF file" in card
    assert "Q8_0 in every quantized GGUF file" not in card
