"""One's own fine-tune under one's own account: what is left out and said beforehand, and its fixes as a pull request."""

import json
from pathlib import Path

import pytest

from tests.acceptance.conftest import ROOT, Hub, Made, saved, sluice, small

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

OWN = "publisher/tiny-chat"
GGUF = "publisher/tiny-chat-GGUF"
LEFT_OUT = f"The 16-bit model is not published: {OWN} is the upstream itself."
FIXED = {"generation_config.json", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "config.json"}


def own_recipe(folder: Path) -> Path:
    """The small recipe with the 16-bit model and one GGUF type."""
    found = small()
    found["variants"] = {"sixteen_bit": True, "gguf": ["Q4_K_M"]}
    for gate in found["gates"]:
        if gate["measure"] in {"file.failures", "weights.failures"}:
            gate["kinds"] = ["gguf"]
    return saved(folder, found)


def test_the_upstream_itself_is_left_out_and_its_fixes_are_offered_once(hub: Hub, made: Made, tmp_path: Path) -> None:
    hub.publisher.create_repo(OWN)
    released = hub.publisher.upload_folder(repo_id=OWN, folder_path=ROOT / "demo" / "model", commit_message="My fine-tune").oid
    recipe = own_recipe(tmp_path)
    settings = hub.environment(made(tmp_path / "home"), SLUICE_NAMESPACE="Publisher")
    planned = sluice("run", OWN, "--recipe", recipe, "--dry-run", "--json", **settings)
    assert planned.returncode == 0, planned.stderr
    plan = json.loads(planned.stdout)
    assert {name.lower(): tags for name, tags in plan["targets"].items()} == {GGUF.lower(): ["Q4_K_M"]}
    assert any(remark.startswith(LEFT_OUT) and "`--fixes-as-pr` offers" in remark for remark in plan["remarks"])

    settings["SLUICE_NAMESPACE"] = "publisher"
    plain = sluice("run", OWN, "--recipe", recipe, **settings)
    said = " ".join(plain.stdout.split())
    assert plain.returncode == 0, said + plain.stderr
    assert said.index(LEFT_OUT) < said.index("snapshot"), "it is said before anything is done"
    assert said.count(LEFT_OUT) == 2, "and with the result"
    assert hub.commits(OWN)[0] == released
    assert not list(hub.publisher.get_repo_discussions(OWN))
    assert "offered to the upstream" not in card(hub)

    asked = sluice("run", OWN, "--recipe", recipe, "--fixes-as-pr", "--json", **settings)
    assert asked.returncode == 0, asked.stderr
    summary = json.loads(asked.stdout)
    assert [(row["tag"], row["verdict"]) for row in summary["variants"]] == [("16bit", "passed"), ("Q4_K_M", "passed")]
    assert [item["repo"] for item in summary["publications"]] == [GGUF]
    request = summary["pull_request"]
    assert (request["repo"], request["number"], request["state"]) == (OWN, 1, "opened")
    assert set(request["files"]) == {patch["file"] for patch in summary["patches"]} <= FIXED
    assert LEFT_OUT in summary["remarks"][0]
    details = hub.publisher.get_discussion_details(OWN, 1)
    assert {line.split(" b/")[1] for line in details.diff.splitlines() if line.startswith("diff --git")} == set(request["files"])
    assert all(patch["reason"].split(" (")[0][:40] in details.events[0].content for patch in summary["patches"])
    assert f"<{request['url']}>" in card(hub)

    commits = hub.commits(GGUF)
    again = json.loads(sluice("run", OWN, "--recipe", recipe, "--fixes-as-pr", "--json", **settings).stdout)
    assert again["pull_request"] == request | {"state": "open"}
    assert len(list(hub.publisher.get_repo_discussions(OWN))) == 1
    assert hub.commits(GGUF) == commits
    shown = " ".join(sluice("status", str(again["run"]), **settings).stdout.split())
    assert f"was there already: {request['url']}" in shown

    hub.publisher.merge_pull_request(OWN, 1)
    mended = json.loads(sluice("run", OWN, "--recipe", recipe, "--fixes-as-pr", "--json", **settings).stdout)
    assert mended["release"]["sha"] != released
    assert mended["patches"] == []
    assert mended["pull_request"] is None
    assert mended["remarks"][-1] == f"There was nothing to fix in {OWN}, so no pull request was opened."


def card(hub: Hub) -> str:
    return Path(hub.publisher.hf_hub_download(GGUF, "README.md", local_dir=hub.root.parent / "card", force_download=True)).read_text(encoding="utf-8")
