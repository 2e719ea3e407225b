"""A model that reads images: its projectors are made, compared with it and published beside the GGUF files, where llama.cpp finds them."""

import json
from pathlib import Path

import pytest

from builders.weights import read_header
from tests import architectures, seeing
from tests.acceptance.conftest import saved, sluice, small

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NOWHERE = {"SLUICE_HUB_ENDPOINT": "http://127.0.0.1:1"}  # no Hub is there, and no token is given
PARTS = ["mmproj-BF16", "mmproj-F16", "mmproj-Q8_0"]


def test_projectors_are_measured_and_published_with_the_gguf_files(tmp_path: Path) -> None:
    model = architectures.MODELS["Gemma 3 with vision"](tmp_path / "seeing")
    recipe = small()
    recipe["variants"] = {"sixteen_bit": False, "gguf": ["Q8_0"]}
    recipe["evaluation"]["mmlu"] = None
    close = {"name": "images", "measure": "mmproj.error", "at_most": 0.004, "kinds": ["mmproj"]}
    recipe["gates"] = [{"name": "file", "measure": "file.failures", "at_most": 0}, close]
    done = sluice("release", model, "--to", tmp_path / "out", "--recipe", saved(tmp_path, recipe), "--json", SLUICE_HOME=str(tmp_path / "home"), **NOWHERE)
    assert done.returncode == 3, done.stderr
    verdicts = {item["tag"]: item["verdict"] for item in json.loads(done.stdout)["variants"]}
    assert verdicts == {"Q8_0": "passed", "mmproj-BF16": "passed", "mmproj-F16": "passed", "mmproj-Q8_0": "failed"}
    repo = tmp_path / "out" / "seeing-GGUF"
    assert {path.name for path in repo.glob("*.gguf")} == {"seeing-Q8_0.gguf", "mmproj-BF16.gguf", "mmproj-F16.gguf", "imatrix.gguf"}
    manifest = {item["tag"]: item for item in json.loads((repo / "sluice-manifest.json").read_text())["variants"]}
    assert 0 < manifest["mmproj-F16"]["figures"]["mmproj.error"]["value"] < manifest["mmproj-BF16"]["figures"]["mmproj.error"]["value"] < 0.004
    card = (repo / "README.md").read_text()
    assert "| [mmproj-BF16](mmproj-BF16.gguf) |" in card
    assert "**mmproj-Q8_0** (" in card
    assert "Images of other shapes come out differently" in card


def test_a_model_that_is_no_language_model_to_transformers_goes_the_whole_way(tmp_path: Path) -> None:
    """SmolVLM, whose NF4 safetensors are the whole model, with what reads images in 16 bits."""
    model = seeing.MODELS["SmolVLM"](tmp_path / "tiles")
    recipe = small()
    recipe["variants"] = {"sixteen_bit": False, "gguf": ["Q8_0"], "bnb_4bit": True, "mmproj": ["BF16"]}
    recipe["evaluation"]["mmlu"] = None
    images = {"name": "images", "measure": "mmproj.error", "at_most": 0.01, "kinds": ["mmproj"]}
    recipe["gates"] = [images, {"name": "divergence", "measure": "kld.mean", "at_most": 1, "kinds": ["gguf", "bnb-4bit"]}]
    done = sluice("release", model, "--to", tmp_path / "out", "--recipe", saved(tmp_path, recipe), "--json", SLUICE_HOME=str(tmp_path / "home"), **NOWHERE)
    assert done.returncode == 0, done.stderr
    assert {item["tag"]: item["verdict"] for item in json.loads(done.stdout)["variants"]} == dict.fromkeys(("Q8_0", "bnb-4bit", "mmproj-BF16"), "passed")
    repo = tmp_path / "out" / "tiles-bnb-4bit"
    assert "AutoModelForImageTextToText.from_pretrained(repo" in (repo / "README.md").read_text()
    tensors = {tensor.name: tensor.dtype for path in repo.glob("*.safetensors") for tensor in read_header(path)}
    assert {type for name, type in tensors.items() if name.endswith(".weight") and ("vision" in name or "connector" in name)} == {"BF16"}
    assert {tensors[name] for name in tensors if name.endswith("text_model.layers.0.mlp.up_proj.weight")} == {"U8"}
