"""Releases that are measured on data sets of the Hub, and without questions."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import parse_eval_result_entries

from publishers.naming import EVALUATIONS
from tests.acceptance.conftest import NAMESPACE, UPSTREAM, Hub, sluice
from tests.published import CHAT, DATA, MMLU, TEXT, conversations, owned, publish, wikitext

pytestmark = pytest.mark.slow

TARGET = f"{NAMESPACE}/tiny-chat-GGUF"


def recipe(folder: Path, *, asks: bool) -> Path:
    evaluation: dict[str, Any] = {"divergence": {"plain": [TEXT], "tokens": 4000}, "generation": {"prompts": ["List 5 garments."], "max_tokens": 64}}
    if asks:
        evaluation["mmlu"] = {"data": MMLU}
    path = folder / ("asks.yaml" if asks else "quiet.yaml")
    found = {
        "name": path.stem,
        "variants": {"sixteen_bit": False, "gguf": ["Q4_K_M"]},
        "calibration": {"chat": [CHAT], "tokens": 8000},
        "evaluation": evaluation,
    }
    path.write_text(yaml.safe_dump(found))
    return path


def released(done: Any) -> dict[str, Any]:
    assert done.returncode in (0, 3), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_release_on_data_sets_of_the_hub_and_one_without_questions(hub: Hub, tmp_path: Path) -> None:
    owner = owned(hub.root, hub.url)
    commit = owner.dataset_info("owner/text").sha
    asked = publish(owner, "owner/mmlu", {"eval.yaml": b"name: Tiny\ntasks: [{id: tiny, config: all}]\n"})
    settings = hub.environment(tmp_path / "home")
    asking = recipe(tmp_path, asks=True)
    plan = json.loads(sluice("run", UPSTREAM, "--recipe", asking, "--dry-run", "--json", **settings).stdout)
    assert {gate["measure"] for gate in plan["gates"]} >= {"mmlu.difference", "kld.mean", "overlap.share"}
    # what is published there afterwards does not change what was fetched
    publish(owner, "owner/text", {"raw/test-00000-of-00001.parquet": wikitext("calibration_questions.txt")}, "cc0-1.0")

    found = released(sluice("run", UPSTREAM, "--recipe", asking, "--json", **settings))
    (variant,) = found["variants"]
    assert variant["verdict"] == "passed", variant["reasons"]
    assert variant["mmlu"]["n"] == 800
    card = Path(hub.publisher.hf_hub_download(TARGET, "README.md", local_dir=tmp_path / "first")).read_text()
    assert f"`owner/text`, `raw/test-00000-of-00001.parquet`, at commit `{commit}`, licence: cc-by-sa-3.0, gfdl." in card
    manifest = json.loads(Path(hub.publisher.hf_hub_download(TARGET, "sluice-manifest.json", local_dir=tmp_path / "first")).read_bytes())
    used = {item["use"]: item for item in manifest["data"]}
    assert used.keys() == {"calibration.chat", "evaluation.plain", "evaluation.mmlu"}
    assert (used["evaluation.plain"]["repo"], used["evaluation.plain"]["commit"]) == ("owner/text", commit)
    report = Path(hub.publisher.hf_hub_download(TARGET, "sluice-report.html", local_dir=tmp_path / "first")).read_text()
    assert commit[:12] in report
    results = yaml.safe_load(Path(hub.publisher.hf_hub_download(TARGET, EVALUATIONS, local_dir=tmp_path / "first")).read_bytes())
    (entry,) = parse_eval_result_entries(results)
    assert (entry.dataset_id, entry.task_id, entry.dataset_revision) == ("owner/mmlu", "tiny", asked)
    assert entry.value == round(100 * variant["mmlu"]["accuracy"], 2)
    assert EVALUATIONS in manifest["files"]

    quiet = sluice("run", UPSTREAM, "--recipe", recipe(tmp_path, asks=False), **settings)
    assert quiet.returncode == 0, quiet.stdout + quiet.stderr
    assert "Q4_K_M" in quiet.stdout
    assert "MMLU" not in quiet.stdout
    assert "flips" not in quiet.stdout
    second = Path(hub.publisher.hf_hub_download(TARGET, "README.md", local_dir=tmp_path / "second")).read_text()
    assert "MMLU" not in second
    assert "Q4_K_M" in second
    assert EVALUATIONS not in hub.publisher.list_repo_files(TARGET), "nothing was asked"


def test_data_that_are_neither_here_nor_to_be_had_are_told_at_once(hub: Hub, tmp_path: Path) -> None:
    own = recipe(tmp_path, asks=False)
    own.write_text(own.read_text().replace("owner/text@main", "owner/none@main"))
    done = sluice("run", UPSTREAM, "--recipe", own, timeout=60, **hub.environment(tmp_path / "home"))
    assert done.returncode == 1
    assert "owner/" in done.stderr
    assert "does not exist, or is private" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "home" / "stages").glob("*"))


def test_text_of_ones_own_in_parquet(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "own.parquet").write_bytes(conversations("evaluation.jsonl", "conversations"))
    path = tmp_path / "own.yaml"
    text = {"chat": ["own.parquet"], "tokens": 4000}
    path.write_text(yaml.safe_dump({"name": "own", "calibration": {"plain": [str(DATA / "calibration_questions.txt")]}, "evaluation": {"divergence": text}}))
    done = sluice("run", UPSTREAM, "--recipe", path, "--dry-run", "--json", timeout=120, **hub.environment(tmp_path / "home"))
    assert done.returncode == 0, done.stderr
    listed = json.loads(sluice("data", "list", "--recipe", path, "--json", **hub.environment(tmp_path / "home")).stdout)["data"]
    assert [row["state"] for row in listed] == ["here", "here"]
