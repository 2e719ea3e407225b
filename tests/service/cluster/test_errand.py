"""What an errand tells of its end: the stage's own failure as one, and whatever is wrong with the node as what another node may not have."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from config import sharing
from config.digests import file_sha256
from service.cluster import errand, versions
from service.execution.artifacts import ArtifactStore

FUNCTIONS = "tests.service.stage_functions"


@pytest.fixture(autouse=True)
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this machine keeps what it needs as a node."""
    monkeypatch.setenv("SLUICE_CACHE", str(tmp_path / "node"))
    monkeypatch.setattr(errand, "SETTLING", 0.0)
    return tmp_path / "node"


def order(tmp_path: Path, function: str, given: Path | None = None, **params: Any) -> dict[str, Any]:
    """A stage to be done, whose input is in the store."""
    item = None
    if given is not None:
        files = [{"path": ".", "sha256": file_sha256(given)}]
        item = {"number": 0, "folder": False, "shown": str(given), "digest": files[0]["sha256"], "files": files}
    return {
        "function": f"{FUNCTIONS}:{function}",
        "params": params,
        "limits": {"seconds": 600, "memory_bytes": None, "threads": 1},
        "log": "/the/service/stage.log",
        "name": "stage",
        "inputs": {} if item is None else {"text": [item]},
        "single": ["text"],
        "store": f"file://{tmp_path}/store",
        "patience": 0.0,
        "key": "k" * 64,
    }


def end(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What is told at last."""
    return list(errand.carry_out(wanted, versions.here()))[-1]


def test_what_the_stage_raises_is_its_failure(tmp_path: Path) -> None:
    assert end(order(tmp_path, "refuse")) == {"failed": {"type": "UpstreamError", "message": "the model is broken; use another"}}
    died = end(order(tmp_path, "die"))["failed"]
    assert died["type"] == "StageError"
    assert "/the/service/stage.log has all that it printed" in died["message"]


def test_another_version_is_told_as_a_failure_which_no_other_try_would_cure(tmp_path: Path) -> None:
    *_, said = errand.carry_out(order(tmp_path, "refuse"), {"Python": "3.0.0"})
    assert said["failed"]["type"] == "ToolError"
    assert "install the same there as here" in said["failed"]["message"]


def test_a_full_disk_is_the_node_s_and_told_as_its(tmp_path: Path, node: Path) -> None:
    said = end(order(tmp_path, "fill_the_disk"))["unable"]
    assert said["type"] == "NoSpace"
    assert said["message"].startswith(f"The disk of {node} on the node ")
    assert said["message"].endswith("Free some space on it, or let SLUICE_CACHE of that node name a folder on a larger disk.")


def test_a_store_that_the_node_cannot_reach_and_a_folder_that_it_cannot_use_are_the_node_s(tmp_path: Path, node: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "artifacts").symlink_to(tmp_path / "store" / "artifacts")
    said = end(order(tmp_path, "say_so", text="abcd", threads=1))["unable"]
    assert said["type"] == "ClusterUnavailable"
    assert f"could not carry it out: Cannot write to file://{tmp_path}/store" in said["message"]
    node.rename(tmp_path / "away")
    node.write_text("")
    assert end(order(tmp_path, "refuse"))["unable"]["type"] == "StageError"


def test_an_input_is_there_although_what_the_node_keeps_is_thrown_away_at_that_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tmp_path / "text"
    text.write_text("ab" * sharing.LEAST)
    wanted = order(tmp_path, "shout", text, times=1)
    ArtifactStore(wanted["store"]).put(text, file_sha256(text))
    assert "done" in end(wanted), "and is kept on the node from now on"

    def taken(target: Path, sha256: str, blobs: Path) -> bool:
        there = sharing.take(target, sha256, blobs)
        (blobs / sha256).unlink()  # another errand finds the disk short, and has seen that nothing used it
        return there

    monkeypatch.setattr(errand, "take", taken)
    assert "done" in end(wanted)
