"""`sluice release` of models that remember a text by a state: a hybrid with attention in one of four layers, and one without any attention."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests import architectures
from tests.acceptance.conftest import ROOT, saved, sluice

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DATA = ROOT / "demo" / "data"
NOWHERE = {"SLUICE_HUB_ENDPOINT": "http://127.0.0.1:1"}  # no Hub is there, and no token is given
TAGS = ("BF16", "Q4_K_M", "bnb-4bit")
RELEASE = {
    "metadata": ("metadata.failures", 0),
    "conversion tokens": ("parity.token_mismatches", 0),
    "conversion logits": ("parity.kld", 0.02),  # what rounding activations makes where it sends a token to another expert
    "long text": ("long.kld", 0.02),
    "tokenizer": ("tokenizer.mismatches", 0),
    "importance matrix": ("imatrix.failures", 0),
}
VARIANTS = (
    {"name": "file", "measure": "file.failures", "at_most": 0, "kinds": ["gguf"]},
    {"name": "weights", "measure": "weights.failures", "at_most": 0, "kinds": ["gguf"]},
    {"name": "divergence", "measure": "kld.mean", "at_most": 0.5},
)


def recipe(folder: Path) -> Path:
    """Every gate that asks whether both engines run the same model, with as little text as there may be."""
    found: dict[str, Any] = {"name": "states", "fixes": "auto"}
    found["variants"] = {"sixteen_bit": False, "gguf": ["BF16", "Q4_K_M"], "bnb_4bit": True}
    found["calibration"] = {"plain": [str(DATA / "calibration_questions.txt")], "tokens": 2000}
    found["evaluation"] = {
        "divergence": {"plain": [str(DATA / "evaluation_questions.txt")], "tokens": 1000},
        "context": 128,
        "generation": {"prompts": ["What is the capital of France?"], "max_tokens": 8},
    }
    found["gates"] = [{"name": name, "measure": measure, "at_most": most, "scope": "release"} for name, (measure, most) in RELEASE.items()]
    found["gates"] += VARIANTS
    return saved(folder, found)


@pytest.mark.parametrize(("name", "repo"), [("Qwen3-Next", "tiny-hybrid"), ("Mamba 2", "tiny-states")])
def test_it_goes_through_every_gate_to_a_published_repo(name: str, repo: str, tmp_path: Path) -> None:
    model, home = architectures.MODELS[name](tmp_path / repo), str(tmp_path / "home")
    done = sluice("release", model, "--to", tmp_path / "out", "--recipe", recipe(tmp_path), "--json", SLUICE_HOME=home, **NOWHERE)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout)
    rows = {row["tag"]: row for row in summary["variants"]}
    assert {tag: row["verdict"] for tag, row in rows.items()} == dict.fromkeys(TAGS, "passed")
    assert rows["BF16"]["kld"]["mean"] == 0 < rows["Q4_K_M"]["kld"]["mean"]
    judged = json.loads(sluice("gates", str(summary["run"]), "--json", SLUICE_HOME=home).stdout)["variants"]
    gates = {item["tag"]: {gate["gate"] for gate in item["gates"]} for item in judged}
    assert gates["Q4_K_M"] >= {*RELEASE, "file", "weights", "divergence"}

    published = tmp_path / "out" / f"{repo}-GGUF"
    for tag in ("BF16", "Q4_K_M"):
        assert (published / f"{repo}-{tag}.gguf").stat().st_size == rows[tag]["bytes"]
    card = (published / "README.md").read_text(encoding="utf-8")
    (row,) = [line for line in card.partition("\n## Measured\n")[2].partition("\n## ")[0].splitlines() if line.startswith("| `Q4_K_M` |")]
    assert f"| {rows['Q4_K_M']['kld']['mean']:.5f} ±" in row
    assert (tmp_path / "out" / f"{repo}-bnb-4bit" / "model.safetensors").is_file()
