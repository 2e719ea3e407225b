"""`sluice release` of an adapter whose base is another repo: what is published is the merged model, and says what was merged into what."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.torch import load_file

from tests import releases
from tests.acceptance.conftest import NAMESPACE, ROOT, UPSTREAM, Hub, saved, sluice, small
from tests.adapters import SHAPES, lora

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

REPO = "upstream/tiny-lora"
TARGETS = {f"model.layers.{layer}.{name}.weight" for layer in range(4) for name in SHAPES}


def recipe(folder: Path) -> Path:
    """The merged model itself, and one GGUF file."""
    found = small()
    found["variants"] = {"sixteen_bit": True, "gguf": ["Q8_0"]}
    found["evaluation"]["mmlu"] = None
    kinds = {"file": ["gguf"], "weights": ["gguf"]}
    found["gates"] = [gate | {"kinds": kinds.get(gate["name"], [])} for gate in found["gates"] if gate["name"] != "mmlu"]
    return saved(folder, found)


def test_an_adapter_is_released_as_the_model_that_it_makes_of_its_base(hub: Hub, tmp_path: Path) -> None:
    base = str(hub.publisher.repo_info(UPSTREAM).sha)
    hub.push(folder=releases.clean(tmp_path / "later"), message="the base goes on")
    adapter = hub.push(REPO, lora(tmp_path / "adapter", UPSTREAM, revision=base))
    done = sluice("release", REPO, "--recipe", recipe(tmp_path), "--json", **hub.environment(tmp_path / "home"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert {row["tag"]: row["verdict"] for row in json.loads(done.stdout)["variants"]} == dict.fromkeys(("16bit", "Q8_0"), "passed")

    whole, files = (Path(hub.publisher.snapshot_download(f"{NAMESPACE}/tiny-lora{end}", local_dir=tmp_path / f"got{end}")) for end in ("", "-GGUF"))
    before, after = (load_file(folder / "model.safetensors") for folder in (ROOT / "demo" / "model", whole))
    assert before.keys() == after.keys()
    assert {name for name in before if not before[name].equal(after[name])} == TARGETS
    assert not list(whole.glob("adapter_*"))
    (stored,) = (tensor for tensor in GGUFReader(files / "tiny-lora-Q8_0.gguf").tensors if tensor.name == "blk.0.ffn_down.weight")
    made = dequantize(stored.data, stored.tensor_type)
    far = [float(np.abs(made - values["model.layers.0.mlp.down_proj.weight"].float().numpy()).max()) for values in (after, before)]
    assert far[0] < far[1] / 2, "the file is made of the merged weights"

    for folder in (whole, files):
        card, manifest = (folder / "README.md").read_text(encoding="utf-8"), json.loads((folder / "sluice-manifest.json").read_bytes())
        assert re.search(rf"- It is an adapter \(LoRA\)\. Base model: \[{UPSTREAM}\]\([^)]*\) at commit `{base}`", card)
        assert f"{len(TARGETS)} of {len(before)} tensors changed, all others are the base's bit for bit" in card
        assert manifest["upstream"]["sha"] == adapter
        assert manifest["upstream"]["base"] == {"repo": UPSTREAM, "sha": base}
