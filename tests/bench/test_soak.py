"""What the soak's judge takes for wrong, of repos on a real Hub; a small piece of its simulated days, and how its parts are told."""

import hashlib
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants

from bench.faulty import Request
from bench.soak.found import Found
from bench.soak.hours import hours
from bench.soak.judge import Judge
from bench.soak.steps import steps
from bench.soak.world import Service, world
from config.words import Place, Release
from hub.server import running
from hub.tokens import create_token
from publishers.manifest import FileEntry, build

REPO = "acme/model-GGUF"


@pytest.fixture
def api(tmp_path: Path) -> Iterator[HfApi]:
    (root := tmp_path / "hub").mkdir()
    with running(root) as url:
        found = HfApi(endpoint=url, token=create_token(root, user="publisher", orgs=["acme"]))
        found.create_repo(REPO)
        yield found


@pytest.fixture
def judge(api: HfApi) -> Judge:
    return Judge(api=api, namespace="acme")


def publish(api: HfApi, position: int, *, digest: str | None = None, extra: dict[str, bytes] | None = None) -> None:
    """A publication of the upstream's commit number `position`."""
    content = f"---\nlicense: mit\n---\n# {position}\n".encode()
    entry = FileEntry(sha256=digest or hashlib.sha256(content).hexdigest(), bytes=len(content))
    manifest = build(
        release=Release(repo="upstream/model", sha=f"{position:040x}"),
        recipe_name="soak",
        recipe_digest="0" * 64,
        tools={},
        patches=(),
        variants=(),
        files={"README.md": entry},
        place=Place(position=position, date="2026-01-01T00:00:00+00:00"),
    )
    files = {"README.md": content, "sluice-manifest.json": manifest.to_bytes(), **(extra or {})}
    api.create_commit(REPO, [CommitOperationAdd(path, data) for path, data in files.items()], commit_message="publish")


def test_whole_publications_in_order_are_right(api: HfApi, judge: Judge) -> None:
    publish(api, 1)
    publish(api, 2)
    assert judge.faults() == []
    assert [item.position for item in judge.history(REPO)] == [1, 2]
    assert judge.branches() == []


def test_what_is_half_double_or_older_is_wrong(api: HfApi, judge: Judge) -> None:
    assert judge.faults() == [f"half: {REPO} is public and holds no publication"]
    publish(api, 2)
    publish(api, 1)
    publish(api, 2)
    assert [fault.partition(":")[0] for fault in judge.faults()] == ["older over newer", "double"]


def test_files_beside_the_manifest_are_wrong(api: HfApi, judge: Judge) -> None:
    publish(api, 1, extra={"left.gguf": b"GGUF"})
    publish(api, 2, digest="0" * 64)
    api.create_commit(REPO, [CommitOperationDelete("sluice-manifest.json")], commit_message="half")
    said = " ".join(judge.faults())
    for words in ("left.gguf is not what the manifest lists", "README.md is not what the manifest lists", "holds README.md, left.gguf and no manifest"):
        assert words in said


def test_branches_that_stay_are_named(api: HfApi, judge: Judge) -> None:
    api.create_branch(REPO, branch="staging")
    assert judge.branches() == [f"{REPO}@staging"]


def test_what_outlives_a_killed_service_is_found_and_ended() -> None:
    script = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); print('up', flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        (child,) = psutil.Process(process.pid).children()
        found = Service(home=Path(), process=process, store=SimpleNamespace()).kill(seconds=0.5)  # type: ignore[arg-type]
        assert found == [child.pid]
        child.wait(10)


def test_every_request_of_a_publication_is_a_step_with_a_name() -> None:
    asked = (
        ("POST", "/api/repos/create"),
        ("GET", "/api/models/acme/a-GGUF"),
        ("POST", "/api/models/acme/a-GGUF/preupload/main"),
        ("PUT", "/lfs/77/ab?signature=1"),
        ("PUT", "/lfs/77/cd?signature=1"),
        ("POST", "/api/models/acme/a-GGUF/paths-info/main"),
        ("POST", "/api/models/acme/a-GGUF/commit/sluice%2Fstaging"),
        ("POST", "/api/models/acme/a-GGUF/commit/main"),
        ("DELETE", "/api/models/acme/a-GGUF/branch/sluice%2Fstaging"),
        ("PUT", "/api/models/acme/a-GGUF/settings"),
    )
    found = steps(Request(method=method, path=path, headers={}) for method, path in asked)
    assert list(map(str, found)) == [
        "create 1", "preupload 1", "LFS PUT 1", "LFS PUT 2", "staging commit 1", "main commit 1", "branch delete 1", "opening 1",
    ]  # fmt: skip


def test_a_part_that_was_cut_short_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    found = Found("polls", 500)
    found.done["polls"] = 499
    found.tell(0.0)
    assert found.short
    assert capsys.readouterr().out.startswith("polls: 499 of 500 in ")
    found.done["polls"] += 1
    assert not found.short


def test_days_pass_and_nothing_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with world(tmp_path) as built:
        found = hours(built, 72, time.monotonic() + 600, step=timedelta(hours=3), often=1, models=1)
        assert (found.wrong, found.short) == ([], False)
        assert len(built.judge.history("acme/model-0-GGUF")) == len(built.pushed["upstream/model-0"]) == 24
