"""A commit that leaves the weights alone: what depends on what it changes is made again, and the rest is found."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.conftest import ROOT, saved, sluice, small

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

TEXT = ROOT / "demo" / "data" / "calibration_questions.txt"


@dataclass
class Model:
    """A model in a folder, released again and again."""

    folder: Path
    runs: int = 0

    def release(self) -> dict[str, str]:
        """How each step ended."""
        home, model = {"SLUICE_HOME": str(self.folder / "home"), "SLUICE_HUB_ENDPOINT": "http://127.0.0.1:1"}, self.folder / "model"
        done = sluice("release", model, "--to", self.folder / "out", "--recipe", self.folder / "recipe.yaml", "--json", **home)
        assert done.returncode == 0, done.stderr
        self.runs += 1
        told = json.loads(sluice("status", str(self.runs), "--json", **home).stdout)
        return {stage["name"]: stage["state"] for stage in told["stages"]}


@pytest.fixture
def model(tmp_path: Path) -> Model:
    said = small()
    said["variants"] = {"sixteen_bit": False, "gguf": ["Q4_K_M"]}
    said["calibration"] = {"plain": [str(TEXT)], "tokens": 4000}
    said["evaluation"] = {"divergence": {"plain": [str(TEXT)], "tokens": 2000}, "context": 256, "generation": {"prompts": ["Hello."], "max_tokens": 8}}
    said["gates"] = [{"name": "divergence", "measure": "kld.mean", "at_most": 5.0}]
    saved(tmp_path, said)
    shutil.copytree(ROOT / "demo" / "model", tmp_path / "model")
    return Model(tmp_path)


def test_other_advice_or_another_template_costs_no_calibration_and_no_divergence(model: Model) -> None:
    first = model.release()
    kept = {"parity", "long text", "imatrix", "evaluation text", "divergence 1"}
    assert kept <= first.keys()
    advice = model.folder / "model" / "generation_config.json"
    advice.write_text(json.dumps(json.loads(advice.read_text()) | {"temperature": 0.7, "do_sample": True}))
    tokenizer = model.folder / "model" / "tokenizer_config.json"
    template = json.loads(tokenizer.read_text()).get("chat_template") or (model.folder / "model" / "chat_template.jinja").read_text()
    second = model.release()
    assert {name: second[name] for name in (*kept, "convert", "build Q4_K_M")} == {**dict.fromkeys(kept, "reused"), "convert": "done", "build Q4_K_M": "done"}
    (model.folder / "model" / "LICENSE").write_text("You may.\n")
    terms = model.release()
    assert {name for name, state in terms.items() if state != "reused"} <= {"upstream", "snapshot", "fix", "report", "leave model-GGUF"}
    assert (model.folder / "out" / "model-GGUF" / "LICENSE").read_text() == "You may.\n"
    (model.folder / "model" / "chat_template.jinja").write_text(f"{template}{{# as before #}}")
    third = model.release()
    assert third["convert"] == "done"
    assert third["divergence 1"] == "reused"
    config = model.folder / "model" / "config.json"
    other = {"rope_theta": 10000.0, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}
    config.write_text(json.dumps(json.loads(config.read_text()) | {"rope_parameters": other}))
    fourth = model.release()
    again = ("fix", "convert", "build Q4_K_M", "imatrix", "divergence 1")
    assert {name: fourth[name] for name in again} == dict.fromkeys(again, "done"), "other positions, as Llama 4 got after its release, are another model"
