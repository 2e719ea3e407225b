"""Dynamic NF4 from a recipe to the Hub: each variant in a repo of its own, better than plain NF4, explained on its card, and loaded by transformers."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import snapshot_download
from transformers import AutoModelForCausalLM

from engines.environments import TRANSFORMERS_4, Environment
from tests.acceptance.conftest import NAMESPACE, UPSTREAM, Hub, saved, sluice, small

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

DYNAMIC, LARGER = f"{NAMESPACE}/tiny-chat-dynamic-bnb-4bit", f"{NAMESPACE}/tiny-chat-dynamic-40-bnb-4bit"
OLDER = {"name": "older transformers", "measure": "older.failures", "at_most": 0}
BETTER = {"name": "better than plain", "measure": "kld.mean", "relative_to": "stock", "compare": "ratio", "at_most": 1.0}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Two budgets, and one that is below plain NF4, by less than can be told beforehand; plain NF4 itself is not published."""
    found = small()
    entries = [{"tag": "dynamic-bnb-4bit", "above": 0.2}, {"tag": "dynamic-40-bnb-4bit", "above": 0.4}, {"tag": "tiny-bnb-4bit", "bytes": "2.7MB"}]
    found["variants"] = {"sixteen_bit": False, "dynamic_bnb_4bit": entries}
    found["gates"] = [gate for gate in found["gates"] if gate["name"] not in {"file", "weights", "mmlu"}] + [BETTER, OLDER]
    return saved(tmp_path, found)


def test_what_4_bits_hurt_most_stays_in_16(hub: Hub, recipe: Path, tmp_path: Path, fetched: Callable[[Environment], None]) -> None:
    fetched(TRANSFORMERS_4)
    settings = hub.environment(tmp_path / "home")
    done = sluice("run", UPSTREAM, "--recipe", recipe, "--json", **settings)
    assert done.returncode == 3, done.stderr
    summary = json.loads(done.stdout)
    found = {row["tag"]: row for row in summary["variants"]}
    assert {tag: row["verdict"] for tag, row in found.items()} == {"dynamic-bnb-4bit": "passed", "dynamic-40-bnb-4bit": "passed", "tiny-bnb-4bit": "error"}
    assert "The budget of 2700000 bytes is below the" in found["tiny-bnb-4bit"]["reasons"][0]
    dynamic, larger = found["dynamic-bnb-4bit"], found["dynamic-40-bnb-4bit"]
    assert larger["kld"]["mean"] < dynamic["kld"]["mean"] < dynamic["plan"]["stock"] == larger["plan"]["stock"]
    assert dynamic["plan"]["measured"] == dynamic["kld"]["mean"]
    assert 0.5 < dynamic["plan"]["factor"] < 1.5
    assert not dynamic["plan"]["replaced"]
    judged = json.loads(sluice("gates", str(summary["run"]), "--json", **settings).stdout)
    [looked] = [gate for row in judged["variants"] if row["tag"] == "dynamic-bnb-4bit" for gate in row["gates"] if gate["gate"] == "older transformers"]
    assert (looked["outcome"], looked["value"], looked["n"]) == ("passed", 0, 1), "it was asked, and reads the same model"
    assert {publication["repo"] for publication in summary["publications"]} == {DYNAMIC, LARGER}, "plain NF4 was built to compare with"

    folder = Path(snapshot_download(DYNAMIC, local_dir=tmp_path / "got", endpoint=hub.url, token=hub.publisher_token))
    card = (folder / "README.md").read_text()
    assert "with the layers that 4 bits hurt most kept in 16 bits" in card
    assert "## What stays in 16 bits" in card
    assert f'repo = "{DYNAMIC}"' in card
    assert "`dynamic-40-bnb-4bit`" not in card
    kept = json.loads((folder / "config.json").read_text())["quantization_config"]["llm_int8_skip_modules"]
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    linear = {name: module.weight.dtype for name, module in model.named_modules() if name.endswith("_proj")}
    assert {name for name, dtype in linear.items() if dtype == torch.bfloat16} == set(kept) & set(linear)
    assert len(set(linear.values())) == 2
    report = (folder / "sluice-report.html").read_text()
    assert ">planned mix</text>" in report
    assert ">safetensors, not offered</text>" in report, "plain NF4 stands beside them"

    again = sluice("run", UPSTREAM, "--recipe", recipe, "--json", **settings)
    stages = {stage["name"]: stage["state"] for stage in json.loads(again.stdout)["stages"]}
    first = {name for name, state in stages.items() if state != "reused"}  # there was nothing to publish, so nothing to read back
    assert first <= {"plan tiny-bnb-4bit", *(name for name in stages if name.startswith(("answer ", "read back ")))}
    assert len(hub.commits(DYNAMIC)) == len(set(hub.commits(DYNAMIC)))
