"""A model that reads images: its projectors are made, compared with it and published beside the GGUF files, where llama.cpp finds them."""

import json
from pathlib import Path

import pytest

from tests import architectures
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
