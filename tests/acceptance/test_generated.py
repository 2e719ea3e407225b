"""A release, a plan and a file from a model and nothing else: the text to calibrate and to measure on is the model's own."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tests.acceptance.conftest import NAMESPACE, ROOT, UPSTREAM, Hub, saved, sluice, small

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

GATE = {"name": "generated text", "measure": "generated.failures", "at_most": 0, "scope": "release"}
OWN = "text that the model wrote itself"


def recipe(folder: Path, *gates: dict[str, Any]) -> Path:
    """The small recipe without any file of text."""
    found = small()
    found["variants"] = {"sixteen_bit": False, "gguf": ["Q4_K_M"]}
    found["calibration"] = {"generated": 6000}
    found["evaluation"]["divergence"] = {"generated": 4000, "tokens": 3000, "most_tokens": 3000}
    found["fixes"] = "auto"  # of a model that no family knows, too
    found["gates"] = list(gates) or [GATE, {"name": "divergence", "measure": "kld.mean", "at_most": 1.0}]
    return saved(folder, found)


def stuck(folder: Path) -> Path:
    """The bundled model with layers that add nothing, so that it says the same token for ever."""
    model = shutil.copytree(ROOT / "demo" / "model", folder)
    tensors = load_file(model / "model.safetensors")
    broken = {name: tensor * 0 if name.endswith(("o_proj.weight", "down_proj.weight")) else tensor for name, tensor in tensors.items()}
    save_file(broken, model / "model.safetensors", metadata={"format": "pt"})
    return model


def test_a_release_without_any_text_says_what_it_was_calibrated_and_measured_on(hub: Hub, tmp_path: Path) -> None:
    given = hub.environment(tmp_path / "home")
    done = sluice("run", UPSTREAM, "--recipe", recipe(tmp_path), "--json", **given)
    assert done.returncode == 0, done.stdout + done.stderr
    card = Path(hub.publisher.hf_hub_download(f"{NAMESPACE}/tiny-chat-GGUF", "README.md", local_dir=tmp_path / "card")).read_text(encoding="utf-8")
    assert card.count(OWN) >= 2
    planned = json.loads(sluice("run", UPSTREAM, "--recipe", recipe(tmp_path), "--dry-run", "--json", **given).stdout)
    stage = next(stage for stage in planned["stages"] if stage["name"] == "generated text")
    assert stage["reused"]
    again = sluice("run", UPSTREAM, "--recipe", recipe(tmp_path), "--json", **given)
    assert again.returncode == 0
    assert len(hub.commits(f"{NAMESPACE}/tiny-chat-GGUF")) == 2, "the first commit makes the repo"


def test_a_model_that_only_repeats_itself_is_not_calibrated_on_that(hub: Hub, tmp_path: Path) -> None:
    model = stuck(tmp_path / "stuck")
    hub.push("upstream/stuck", model)
    done = sluice("run", "upstream/stuck", "--recipe", recipe(tmp_path), "--json", **hub.environment(tmp_path / "home"))
    assert done.returncode == 3, done.stdout + done.stderr
    summary = json.loads(done.stdout)
    (variant,) = summary["variants"]
    assert variant["verdict"] == "failed"
    assert "had to be dropped" in json.dumps(summary)
    assert not hub.publisher.repo_exists(f"{NAMESPACE}/stuck-GGUF")
    alone = sluice("plan", model, "--like", "Q4_K_M", "--recipe", recipe(tmp_path), SLUICE_HOME=str(tmp_path / "other"))
    assert alone.returncode == 1, alone.stdout
    assert "The text that the model wrote cannot be used" in " ".join(alone.stderr.split())


def test_a_folder_is_enough_for_a_file(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "demo" / "model", tmp_path / "tiny-chat")
    done = sluice("quantize", "tiny-chat", "--no-rounding", "--json", cwd=tmp_path, SLUICE_HOME=str(tmp_path / "home"))
    assert done.returncode == 0, done.stdout + done.stderr
    made = json.loads(done.stdout)
    assert made["file"] == str(tmp_path / "tiny-chat-UD-Q4_K_XL.gguf")
    assert made["bytes"] == (tmp_path / "tiny-chat-UD-Q4_K_XL.gguf").stat().st_size
    assert made["predicted"]["mean"] < made["stock"]["mean"]
