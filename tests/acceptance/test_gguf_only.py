"""`sluice release` of what holds a GGUF file in 16 bits alone: the variants that the model itself has, and cards that say where they come from."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from config.digests import file_sha256
from tests import ggufs, releases
from tests.acceptance.conftest import ROOT, Hub, saved, sluice, small

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

DATA = ROOT / "demo" / "data"
SAME = {"metadata.failures": 0, "parity.token_mismatches": 0, "parity.kld": 0.02, "tokenizer.mismatches": 0, "imatrix.failures": 0}
VARIANTS = {"gguf": ["Q8_0", "Q4_K_M"], "sixteen_bit": True}
REPO = "upstream/tiny-gguf"
NOWHERE = {"SLUICE_HUB_ENDPOINT": "http://127.0.0.1:1"}  # a folder needs no Hub


@pytest.fixture
def alone(tmp_path: Path) -> Path:
    """The bundled model without its defects, as a GGUF file alone."""
    return ggufs.alone(releases.clean(tmp_path / "clean"), tmp_path / "tiny-gguf")


def recipe(folder: Path) -> Path:
    found = small()
    found["variants"] = VARIANTS
    found["evaluation"]["mmlu"] = None
    found["gates"] = [gate | ({"kinds": ["gguf"]} if gate["name"] == "weights" else {}) for gate in found["gates"] if gate["name"] != "mmlu"]
    return saved(folder, found)


def of_texts(folder: Path) -> Path:
    """For a random model without a chat template: what is asked is whether both engines run the same one, and whether its variants are near it."""
    found = small() | {"variants": VARIANTS}
    found["calibration"] = {"plain": [str(DATA / "calibration_questions.txt")], "tokens": 2000}
    found["evaluation"] |= {"divergence": {"plain": [str(DATA / "evaluation_questions.txt")], "tokens": 1000}, "context": 128, "mmlu": None}
    found["gates"] = [{"name": name, "measure": name, "at_most": most, "scope": "release"} for name, most in SAME.items()]
    found["gates"] += [{"name": "weights", "measure": "weights.failures", "at_most": 0, "kinds": ["gguf"]}]
    found["gates"] += [{"name": "divergence", "measure": "kld.mean", "at_most": 0.5}]
    return saved(folder, found)


def tensors(path: Path) -> dict[str, bytes]:
    from gguf import GGUFReader

    return {tensor.name: tensor.data.tobytes() for tensor in GGUFReader(path).tensors}


def test_a_folder_is_released_as_the_model_itself_would_be(tmp_path: Path, alone: Path) -> None:
    file, environment = ggufs.file(alone), {"SLUICE_HOME": str(tmp_path / "home"), **NOWHERE}
    planned = sluice("release", alone, "--to", tmp_path / "repos", "--recipe", recipe(tmp_path), "--dry-run", **environment)
    assert planned.returncode == 0, planned.stderr
    assert f"The model is rebuilt from {file}" in " ".join((planned.stdout + planned.stderr).split())
    done = sluice("release", alone, "--to", tmp_path / "repos", "--recipe", recipe(tmp_path), "--json", **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.copytree(tmp_path / "clean", tmp_path / "itself" / "tiny-gguf")
    whole = sluice("release", tmp_path / "itself" / "tiny-gguf", "--to", tmp_path / "others", "--recipe", recipe(tmp_path), "--json", **environment)
    assert whole.returncode == 0, whole.stdout + whole.stderr

    (made,), (other,) = (root.rglob("*Q4_K_M.gguf") for root in (tmp_path / "repos", tmp_path / "others"))
    assert tensors(made) == tensors(other), "calibrated on the same text, each tensor is the same"
    card, manifest = (made.parent / "README.md").read_text(encoding="utf-8"), json.loads((made.parent / "sluice-manifest.json").read_bytes())
    digest = file_sha256(alone / file)
    assert manifest["upstream"]["gguf"] == [{"path": file, "sha256": digest}]
    assert f"rebuilt from its GGUF file: `{file}`, sha256 `{digest}`" in card
    assert "license: mit" in card


def test_a_repo_is_released_and_one_with_quantized_files_alone_is_not(hub: Hub, tmp_path: Path, alone: Path) -> None:
    hub.push(REPO, alone)
    environment = hub.environment(tmp_path / "home")
    done = sluice("run", REPO, "--recipe", recipe(tmp_path), "--json", **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert {row["tag"]: row["verdict"] for row in told["variants"]} == dict.fromkeys(("Q8_0", "Q4_K_M", "16bit"), "passed")
    held = set(hub.publisher.list_repo_files("acme/tiny"))
    assert {"config.json", "model.safetensors", "tokenizer.json", "LICENSE"} <= held
    assert not {path for path in held if path.endswith(".gguf")}

    hub.upstream.delete_file(ggufs.file(alone), REPO)
    hub.upstream.upload_file(path_or_fileobj=b"few bits", path_in_repo="tiny-Q4_K_M.gguf", repo_id=REPO)
    refused = sluice("run", REPO, "--recipe", recipe(tmp_path), **environment)
    assert refused.returncode == 1
    assert "holds no safetensors, and of GGUF only quantized files: tiny-Q4_K_M.gguf" in " ".join(refused.stderr.split())
    assert "Traceback" not in refused.stderr


def test_a_mixture_of_experts_is_released_with_the_tensors_of_its_makers(hub: Hub, tmp_path: Path) -> None:
    model, alone = ggufs.converted("Qwen3-MoE", tmp_path)
    hub.push("upstream/tiny-mixture-GGUF", alone)
    done = sluice("run", "upstream/tiny-mixture-GGUF", "--recipe", of_texts(tmp_path), "--json", **hub.environment(tmp_path / "home"))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["tag"]: row for row in json.loads(done.stdout)["variants"]}
    assert {tag: row["verdict"] for tag, row in rows.items()} == dict.fromkeys(("Q8_0", "Q4_K_M", "16bit"), "passed")
    assert 0 < rows["Q8_0"]["kld"]["mean"] < rows["Q4_K_M"]["kld"]["mean"]

    whole = Path(hub.publisher.snapshot_download("acme/tiny-mixture", local_dir=tmp_path / "whole"))
    assert json.loads((whole / "config.json").read_bytes())["architectures"] == ["Qwen3MoeForCausalLM"]
    before, after = load_file(model / "model.safetensors"), load_file(whole / "model.safetensors")
    assert before.keys() == after.keys() > {f"model.layers.1.mlp.experts.{expert}.down_proj.weight" for expert in range(4)}
    assert all(torch.equal(value, after[name]) for name, value in before.items())

    published = Path(hub.publisher.snapshot_download("acme/tiny-mixture-GGUF", local_dir=tmp_path / "gguf"))
    assert (published / "tiny-mixture-Q4_K_M.gguf").stat().st_size == rows["Q4_K_M"]["bytes"]
    assert {name for name in tensors(published / "tiny-mixture-Q4_K_M.gguf") if "_exps." in name} == {
        f"blk.{layer}.ffn_{part}_exps.weight" for layer in range(2) for part in ("gate", "up", "down")
    }
    digest = file_sha256(alone / ggufs.file(alone))
    for folder in (whole, published):
        assert json.loads((folder / "sluice-manifest.json").read_bytes())["upstream"]["gguf"] == [{"path": ggufs.file(alone), "sha256": digest}]
    card = (published / "README.md").read_text(encoding="utf-8")
    assert f"rebuilt from its GGUF file: `{ggufs.file(alone)}`, sha256 `{digest}`" in card
    (row,) = [line for line in card.partition("\n## Measured\n")[2].partition("\n## ")[0].splitlines() if line.startswith("| `Q4_K_M` |")]
    assert f"| {rows['Q4_K_M']['kld']['mean']:.5f} ±" in row


def test_a_mix_is_planned_of_a_folder_with_gguf_alone(tmp_path: Path, alone: Path) -> None:
    text = releases.DEMO.parent / "data" / "calibration_questions.txt"
    done = sluice("quantize", alone, "--type", "Q4_K_M", "--text", text, "--out", tmp_path / "small.gguf", SLUICE_HOME=str(tmp_path / "home"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert 0 < (tmp_path / "small.gguf").stat().st_size < (alone / ggufs.file(alone)).stat().st_size / 2
