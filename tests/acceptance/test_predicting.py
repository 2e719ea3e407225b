"""`sluice release` of a model with a layer for multi-token prediction: every GGUF file has it, in a type that needs no importances, or none has."""

import json
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader

from tests import predicting
from tests.acceptance.conftest import saved, sluice, small

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NOWHERE = {"SLUICE_HUB_ENDPOINT": "http://127.0.0.1:1"}  # no Hub is there, and no token is given
RELEASE = {"metadata": "metadata.failures", "conversion tokens": "parity.token_mismatches"}
TYPES = {"BF16": "BF16", "Q4_K_M": "Q8_0", "IQ2_XXS": "Q8_0"}
"""Of the layer's matrices, by file. llama-quantize makes no IQ2_XXS of what has no importances."""


def recipe(folder: Path, **variants: Any) -> Path:
    """What weights are in the way to every kind of GGUF file; a random model is measured for nothing else."""
    found = small()
    found["variants"] = {"sixteen_bit": False, **variants}
    found["calibration"]["tokens"] = 2000
    found["evaluation"]["divergence"]["tokens"] = 2000
    found["evaluation"]["mmlu"] = None
    found["gates"] = [gate for gate in found["gates"] if gate["name"] in {"importance matrix", "file", "weights"}]
    found["gates"] += [{"name": name, "measure": measure, "at_most": 0, "scope": "release"} for name, measure in RELEASE.items()]
    return saved(folder, found)


def released(tmp_path: Path, *tags: str, **variants: Any) -> tuple[Path, int]:
    """The repo with these files, all of which passed, and how many layers the model has besides."""
    model, home = predicting.glm(tmp_path / "drafting"), str(tmp_path / "home")
    done = sluice("release", model, "--to", tmp_path / "out", "--recipe", recipe(tmp_path, **variants), "--json", SLUICE_HOME=home, **NOWHERE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {row["tag"]: row["verdict"] for row in json.loads(done.stdout)["variants"]} == dict.fromkeys(tags, "passed")
    return tmp_path / "out" / "drafting-GGUF", json.loads((model / "config.json").read_bytes())["num_hidden_layers"]


def header(file: Path) -> dict[str, Any]:
    return {name.partition(".")[2]: field.contents() for name, field in GGUFReader(file).fields.items()}


def types(file: Path) -> dict[int, set[str]]:
    """The types of matrices by their layer's number."""
    found: dict[int, set[str]] = {}
    for tensor in GGUFReader(file).tensors:
        if tensor.name.startswith("blk."):
            found.setdefault(int(tensor.name.split(".")[1]), set()).update({tensor.tensor_type.name} if "norm" not in tensor.name else ())
    return found


def test_the_layer_is_published_in_a_type_that_needs_no_importances(tmp_path: Path) -> None:
    """As transformers' weights have it, with the copies of embeddings and output matrix that it holds."""
    repo, layers = released(tmp_path, *TYPES, gguf=[*TYPES])
    for tag, type in TYPES.items():
        file = repo / f"drafting-{tag}.gguf"
        assert (header(file)["block_count"], header(file)["nextn_predict_layers"]) == (layers + 1, 1), tag
        assert types(file)[layers] - {"F32"} == {type}, tag
        assert types(file)[0] != types(file)[layers] or tag == "BF16", tag
    card = (repo / "README.md").read_text(encoding="utf-8")
    assert f"- Layer {layers} is for multi-token prediction (NextN), which llama.cpp runs in no ordinary answer" in card
    assert "nothing here measures them: they are Q8_0 in every quantized GGUF file." in card


def test_no_gguf_file_has_a_layer_that_the_recipe_leaves_out(tmp_path: Path) -> None:
    planned = [{"tag": "UD-Q4_K_XL", "rounding": False}]
    tags = ["BF16", "Q4_K_M", "UD-Q4_K_XL"]
    repo, layers = released(tmp_path, *tags, gguf=["BF16", "Q4_K_M"], dynamic=planned, multi_token_prediction=False)
    for tag in tags:
        file = repo / f"drafting-{tag}.gguf"
        assert header(file)["block_count"] == layers, tag
        assert "nextn_predict_layers" not in header(file), tag
        assert set(types(file)) == {*range(layers)}, tag
    card = (repo / "README.md").read_text(encoding="utf-8")
    assert "- The upstream's layers for multi-token prediction (NextN) are left out of every GGUF file" in card
    assert "Q8_0 in every quantized GGUF file" not in card
