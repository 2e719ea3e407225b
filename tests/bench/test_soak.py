"""What the soak's judge takes for wrong, of repos on a real Hub; a small piece of its simulated days, and how its parts are told."""

import hashlib
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants

from bench.faulty import Request
from bench.soak.found import Found, together
from bench.soak.hours import hours
from bench.soak.judge import Judge
from bench.soak.share import Share, shares
from bench.soak.steps import steps
from bench.soak.world import Service, world
from bench.soak.worlds import Given, in_worlds
from config.errors import ConfigurationError
from config.words import Place, Release
from hub.server import running
from hub.tokens import create_token
from publishers.manifest import FileEntry, build
from service.store import open_store

MODEL, REPO = "upstream/model", "acme/model-GGUF"


@pytest.fixture
def api(tmp_path: Path) -> Iterator[HfApi]:
    (root := tmp_path / "hub").mkdir()
    with running(root) as url:
        found = HfApi(endpoint=url, token=create_token(root, user="publisher", orgs=["acme"]))
        found.create_repo(REPO)
        yield found


@pytest.fixture
def by_lfs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the embedded Hub stores files."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)


@pytest.fixture
def judge(api: HfApi) -> Judge:
    return Judge(api=api, namespace="acme")


def publish(api: HfApi, position: int, *, digest: str | None = None, extra: dict[str, bytes] | None = None, repo: str = REPO, sha: str | None = None) -> None:
    """A publication of the upstream's commit number `position`."""
    content = f"---\nlicense: mit\n---\n# {position}\n".encode()
    entry = FileEntry(sha256=digest or hashlib.sha256(content).hexdigest(), bytes=len(content))
    manifest = build(
        release=Release(repo="upstream/model", sha=sha or f"{position:040x}"),
        recipe_name="soak",
        recipe_digest="0" * 64,
        tools={},
        patches=(),
        variants=(),
        files={"README.md": entry},
        place=Place(position=position, date="2026-01-01T00:00:00+00:00"),
    )
    files = {"README.md": content, "sluice-manifest.json": manifest.to_bytes(), **(extra or {})}
    api.create_commit(repo, [CommitOperationAdd(path, data) for path, data in files.items()], commit_message="publish")


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


def test_a_part_that_was_cut_short_says_so() -> None:
    found = Found("polls", 500)
    found.done["polls"] = 499
    assert found.short
    assert found.told(3) == "polls: 499 of 500 in 3.0 min (polls 499); wrong: 0"
    found.done["polls"] += 1
    assert not found.short


def test_what_worlds_found_is_told_together_and_each_fault_once() -> None:
    one, two = Found("kills", 2, wrong=["half: a", "half: a", "left running: process 1, convert"]), Found("kills", 1, wrong=["double: b", "it is late"])
    one.done["convert"] += 2
    two.done["convert"] += 1
    whole = together("kills", 3, [one, two])
    assert (whole.done, whole.short) == ({"convert": 3}, False)
    assert whole.kinds == {"half": 1, "left running": 1, "double": 1, "other": 1}


@pytest.mark.parametrize(("number", "worlds", "each"), [(7, 3, [2, 2, 3]), (2, 3, [1, 1]), (4, 1, [4])])
def test_worlds_do_each_thing_once_and_the_seed_says_what_chance_does(number: int, worlds: int, each: list[int]) -> None:
    lots = shares(number, worlds, until=0.0, seed="7 kills")
    assert [lot.number for lot in lots] == each
    assert [lot.first + nth for lot in lots for nth in range(lot.number)] == list(range(number))
    again = shares(number, worlds, until=0.0, seed="7 kills")
    chances = [lot.chance.random() for lot in lots]
    assert chances == [lot.chance.random() for lot in again]
    assert len(set(chances)) == len(lots)


def test_places_are_gone_through_in_turn_and_few_things_are_spread_over_them() -> None:
    def gone_through(number: int, worlds: int) -> str:
        return "".join(lot.place("abcdef", nth) for lot in shares(number, worlds, until=0.0, seed="") for nth in range(lot.number))

    assert gone_through(8, 2) == "abcdefab"
    assert gone_through(3, 2) == gone_through(3, 1) == "ace"


def test_what_is_released_differs_and_only_other_weights_are_others(tmp_path: Path, by_lfs: None) -> None:
    with world(tmp_path) as built:
        files = [Path(built.author.snapshot_download(MODEL, revision=built.push(MODEL, what), local_dir=tmp_path / str(number)))
                 for number, what in enumerate(("advice", "terms", "weights", "weights"))]  # fmt: skip
        advised, terms, weights, others = ({path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} for folder in files)
        assert {name for name in terms if terms[name] != advised.get(name)} == {"LICENSE"}
        assert {name for name in weights if weights[name] != terms.get(name)} == {"model.safetensors"}
        pairs = zip(weights["model.safetensors"], others["model.safetensors"], strict=True)
        assert {one ^ other for one, other in pairs} == {0, 1}, "the last bits of some"


def test_what_was_published_under_an_account_before_the_services_moved_must_stay_there(tmp_path: Path, by_lfs: None) -> None:
    with world(tmp_path) as built:
        built.push(MODEL)
        built.publisher.create_repo(REPO)
        publish(built.publisher, 1)
        built.move()
        newest = built.push(MODEL, "terms")
        assert built.judge.faults() == []
        assert [line.partition(" does")[0] for line in built.lost()] == [f"lost: {REPO}", "lost: acme-1/model-GGUF"]
        built.publisher.create_repo("acme-1/model-GGUF")
        assert built.judge.faults() == ["half: acme-1/model-GGUF is public and holds no publication"], "repos of later accounts are looked at too"
        publish(built.publisher, 2, repo="acme-1/model-GGUF", sha=newest)
        assert built.judge.faults() == []
        assert [line.partition(" does")[0] for line in built.lost()] == [f"lost: {REPO}"]


def test_worlds_on_a_database_server_leave_no_database_behind(tmp_path: Path, postgres_url: str) -> None:
    with world(tmp_path, postgres_url) as built:
        home, shared = built.database("home"), built.database("shared")
        assert home != shared
        assert home == built.database("home")
        for url in (home, shared):
            open_store(url).close()
    with pytest.raises(ConfigurationError, match="does not exist"):
        open_store(home)


def test_a_world_is_a_process_whose_findings_are_told_as_they_come(capfd: pytest.CaptureFixture[str]) -> None:
    found = in_worlds("hours", 2, Given(worlds=3, minutes=30, seed=0))
    assert (found.done, found.faults, found.processor > 0) == ({"hours": 2}, [], True)
    assert [line.partition(" in ")[0] for line in capfd.readouterr().out.splitlines() if line.startswith("hours")] == [
        "hours: 1 of 2",
        "hours: 2 of 2",
        "hours: 2 of 2",
    ]


def test_a_world_that_is_killed_is_no_silence() -> None:
    def kill() -> None:
        began = time.monotonic()
        while time.monotonic() < began + 60:
            for child in psutil.Process().children():
                if any("spawn_main" in word for word in child.cmdline()):
                    child.kill()
                    return

    with ThreadPoolExecutor() as pool:
        pool.submit(kill)
        found = in_worlds("hours", 2, Given(worlds=1, minutes=30, seed=0))
    assert found.short
    assert found.faults == ["a world ended with -9, and what it was at is not judged"]


def test_days_pass_and_nothing_grows(tmp_path: Path, by_lfs: None) -> None:
    with world(tmp_path) as built:
        found = hours(built, Share(number=72, whole=72, until=time.monotonic() + 600), step=timedelta(hours=3), often=1, models=1)
        assert (found.wrong, found.short) == ([], False)
        assert len(built.judge.history("acme/model-0-GGUF")) == len(built.pushed["upstream/model-0"]) == 24
