"""What months bring to a service, from outside: each fault of networks, clocks, disks and people that once took it down, and what the Hub holds afterwards."""

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.faulty import Fault, always, faults
from bench.soak.ending import ended
from bench.soak.pauses import pauses
from bench.soak.share import Share
from bench.soak.world import Service, World, service, world
from config.digests import file_sha256
from publishers.manifest import Manifest
from publishers.naming import MANIFEST
from tests.acceptance.conftest import NAMESPACE, ROOT, sluice, wait_until
from tests.service.helpers import retag

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MODEL, REPO = "upstream/model-1", f"{NAMESPACE}/model-1-GGUF"
BACK = ("double: ", "older over newer: ")  # what the judge calls it that a release comes back, or is published anew by another recipe


@dataclass(frozen=True, kw_only=True)
class There:
    """A Hub with a model upstream, and installations that have built what the model takes already."""

    world: World
    stages: Path

    def home(self, name: str = "home") -> Path:
        if not (home := self.world.folder / name).exists():
            shutil.copytree(self.stages, home / "stages")
        return home

    def environment(self, name: str = "home") -> dict[str, str]:
        hub = {"SLUICE_HUB_ENDPOINT": self.world.proxy.url, "SLUICE_HUB_TOKEN": self.world.token}
        return {"SLUICE_HOME": str(self.home(name)), "SLUICE_NAMESPACE": NAMESPACE, "SLUICE_HUB_PATIENCE": "5", **hub}

    def asked(self, *arguments: str | Path, name: str = "home") -> subprocess.CompletedProcess[str]:
        return sluice(*arguments, **self.environment(name))

    def told(self, *arguments: str | Path, name: str = "home") -> Any:
        done = self.asked(*arguments, "--json", name=name)
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    def released(self, revision: str = "main", *, name: str = "home") -> dict[str, Any]:
        """What releasing the model came to."""
        found: dict[str, Any] = self.told("run", MODEL, "--revision", revision, "--recipe", self.world.recipe, name=name)
        return found

    def manifest(self, *meant: str) -> Manifest:
        """What the published repo says of itself; nothing is wrong with it and all else in the namespace but what was `meant`, by the judge's words for it."""
        assert [fault for fault in self.world.judge.faults() if not fault.startswith(meant)] == []
        path = self.world.publisher.hf_hub_download(REPO, MANIFEST, local_dir=self.world.folder / "looked at", force_download=True)
        return Manifest.model_validate_json(Path(path).read_bytes())

    def commits(self) -> list[str]:
        return [commit.commit_id for commit in self.world.publisher.list_repo_commits(REPO)]


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What a first release of the model built."""
    with world(tmp_path_factory.mktemp("first")) as built:
        (built.folder / "home").mkdir()
        built.push(MODEL)
        assert There(world=built, stages=built.folder).released()["state"] == "done"
        yield built.folder / "home" / "stages"


@pytest.fixture
def there(tmp_path: Path, stages: Path) -> Iterator[There]:
    with world(tmp_path) as built:
        found = There(world=built, stages=stages)
        found.home()
        yield found


def address(running: Service) -> str:
    """Where a service listens, as it says itself."""
    log, said = running.home / "serve.log", "Sluice listens on"
    lines: list[str] = wait_until(lambda: [line for line in log.read_text().splitlines() if line.startswith(said)], seconds=60, what="an address")
    return lines[-1].split()[-1]


def test_the_newest_release_stays_whichever_of_two_services_is_asked_for_an_older_one(there: There) -> None:
    older = there.world.push(MODEL)
    assert there.released(name="one")["state"] == "done"
    newer = there.world.push(MODEL)
    assert there.released(name="two")["state"] == "done"
    commits = there.commits()
    again = there.released(older, name="one")
    assert (again["state"], again["release"]["sha"]) == ("superseded", older)
    assert "which is newer" in again["error"]
    refused = there.asked("run", MODEL, "--revision", older, "--recipe", there.world.recipe, name="two")
    assert (refused.returncode, "which is newer" in refused.stderr) == (1, True), "before anything is built, where that release has no run"
    assert there.commits() == commits

    by = ("--by", "Ada", "--comment", "The new weights are broken.")
    asked = there.told("rollback", str(again["run"]), *by, name="one")
    assert (asked["from"], asked["to"]) == (newer, older)
    assert there.released(older, name="one")["state"] == "done"
    told = there.manifest(*BACK)
    assert told.rollback is not None
    assert (told.upstream.sha, told.rollback.newest, told.rollback.by) == (older, newer, "Ada")
    assert there.released(name="two")["state"] == "superseded", "what was rolled back does not come back by itself"
    third = there.world.push(MODEL)
    assert there.released(name="two")["state"] == "done"
    told = there.manifest(*BACK)
    assert (told.upstream.sha, told.rollback) == (third, None)


@pytest.mark.parametrize("on_rollback", ["hold", "follow"])
def test_a_tag_that_moves_back_is_held_or_followed_as_the_recipe_says(there: There, on_rollback: str) -> None:
    recipe = there.world.recipe
    recipe.write_text(f"{recipe.read_text()}on_rollback: {on_rollback}\n")
    watch = [{"repo": MODEL, "revision": "stable", "recipe": str(recipe)}]
    first, second = there.world.push(MODEL), there.world.push(MODEL, "terms")

    def published(sha: str) -> bool:
        there.world.judge.faults()  # which reads what is new
        return there.world.publisher.repo_exists(REPO) and [each.upstream for each in there.world.judge.history(REPO)[-1:]] == [sha]

    with service(there.world, config={"watch": watch}) as running:
        for sha in (first, second):
            retag(there.world.author, MODEL, sha)
            wait_until(lambda sha=sha: published(sha) and running.over, seconds=120, what=f"a publication of {sha}")
        retag(there.world.author, MODEL, first)
        if on_rollback == "follow":
            wait_until(lambda: published(first), seconds=120, what="a publication of what the tag moved back to")
            assert there.manifest(*BACK).upstream.sha == first
            return
        wait_until(lambda: running.store.runs(state="held"), seconds=120, what="a run that is held")
    (held,) = [run for run in there.told("status") if run["state"] == "held"]
    assert (held["release"]["sha"], there.manifest().upstream.sha) == (first, second)


def test_a_connection_that_stalls_stops_neither_the_service_nor_its_end(there: There) -> None:
    there.world.push(MODEL)
    there.world.proxy.rule = always(Fault(stall=True))
    with service(there.world) as running:
        url = address(running)
        wait_until(lambda: len(there.world.proxy.seen) >= 3, seconds=60, what="calls that were given up and made again")
        assert httpx.get(f"{url}/api/v1/live", timeout=20).status_code == 200
        began = time.monotonic()
        running.process.terminate()
        running.process.wait(20)
        assert time.monotonic() - began < 15, "ten seconds, and what a busy machine adds"
    there.world.proxy.rule = lambda request: None
    with service(there.world) as running:
        assert ended(there.world, running) == []


AWAY = {"503": Fault(answer=503), "401": Fault(answer=401)}


@pytest.mark.parametrize("fault", AWAY.values(), ids=AWAY)
def test_a_hub_that_is_away_costs_a_run_no_attempt(there: There, fault: Fault) -> None:
    there.world.push(MODEL)
    with service(there.world) as running:
        wait_until(lambda: running.at_work, seconds=60, what="a run")
        there.world.proxy.rule = always(fault)
        wait_until(lambda: (run := running.run()) is not None and run.due is not None, seconds=120, what="a run that waits")
        waiting = running.run()
        assert waiting is not None
        assert (waiting.state, waiting.attempt) == ("queued", 1)
        assert "tries it again by itself" in " ".join(there.asked("status", str(waiting.id)).stdout.split())
        there.world.proxy.rule = lambda request: None
        running.store.hasten()  # to the moment until which it waits
        assert ended(there.world, running) == []
        run = running.run()
        assert run is not None
        assert (run.state, run.attempt, run.error) == ("done", 1, None)
    assert len(there.world.judge.history(REPO)) == 1


def test_a_run_is_explained_published_and_compared_by_the_recipe_that_it_began_with(there: There) -> None:
    there.world.push(MODEL)
    assert there.released()["state"] == "done"
    recipe = there.world.recipe.read_text(encoding="utf-8")
    there.world.recipe.write_text(recipe.replace("[Q4_K_M, Q2_K]", "[Q4_K_M]"), encoding="utf-8")
    changed = there.released()
    assert (changed["run"], changed["state"]) == (2, "done")
    assert {variant.tag for variant in there.manifest(*BACK).variants} == {"Q4_K_M"}
    assert there.told("status", "1")["state"] == "done"
    assert "- Q2_K" in there.asked("recipe", "1").stdout
    assert any("Q2_K" in line for line in there.told("recipe", "1", "2")["diff"])
    there.world.recipe.unlink()
    assert there.asked("retry", "1").returncode == 0
    with service(there.world) as running:
        wait_until(lambda: running.store.run(1).state not in ("queued", "running"), seconds=120, what="the end of the first run")
        assert (running.store.run(1).state, running.store.run(1).error) == ("done", None)
    assert {variant.tag for variant in there.manifest(*BACK).variants} == {"Q4_K_M", "Q2_K"}


def test_a_commit_that_leaves_the_weights_alone_takes_no_room_for_them(there: There) -> None:
    weights = ROOT / "demo" / "model" / "model.safetensors"

    def copies() -> int:
        size, digest = weights.stat().st_size, file_sha256(weights)
        alike = [path for path in there.home().rglob("*") if path.is_file() and path.stat().st_size == size and file_sha256(path) == digest]
        return len({path.stat().st_ino for path in alike})

    there.world.push(MODEL)
    assert there.released()["state"] == "done"
    before = copies()
    there.world.push(MODEL)
    there.world.proxy.seen.clear()
    assert there.released()["state"] == "done"
    asked = [request for request in there.world.proxy.seen if request.method == "GET" and "/resolve/" in request.path]
    whole = [request for request in asked if request.path.endswith("/model.safetensors") and "range" not in request.headers]
    assert (bool(asked), whole) == (True, []), "they are not fetched again"
    assert copies() == before


def test_what_nobody_needs_goes_and_what_is_published_stays(there: There) -> None:
    for _ in range(3):
        there.world.push(MODEL)
        assert there.released()["state"] == "done"
    settings = there.world.folder / "sluice.yaml"
    settings.write_text(json.dumps({"keep": {"runs": 1, "days": 0.000001}}), encoding="utf-8")
    foretold = there.told("--config", settings, "prune", "--dry-run")
    before = sorted(path.name for path in (there.home() / "stages").iterdir())
    done = there.told("--config", settings, "prune")
    assert done["gone"] == foretold["gone"] != []
    left = sorted(path.name for path in (there.home() / "stages").iterdir())
    assert set(left) < set(before)
    assert there.released()["state"] == "done", "it is made again where it is wanted"
    there.manifest()


def test_a_disk_that_is_nearly_full_begins_no_run_until_there_is_room(there: There) -> None:
    there.world.push(MODEL)
    with service(there.world, config={"keep": {"free": "1000TB", "pause": "1000TB"}}) as running:
        url = address(running)
        wait_until(lambda: running.run() is not None, seconds=60, what="a run that waits")
        health = httpx.get(f"{url}/api/v1/health", timeout=20)
        assert (health.status_code, health.json()["disk"]["paused"]) == (503, True)
        time.sleep(3)
        assert (run := running.run()) is not None
        assert (run.state, run.started) == ("queued", None)
    with service(there.world) as running:
        assert ended(there.world, running) == []


def test_one_of_two_services_that_wakes_up_after_its_lease_publishes_nothing(there: There) -> None:
    found = pauses(there.world, Share(number=1, whole=1, until=time.monotonic() + 300))
    assert (found.done.total(), found.wrong) == (1, [])


def test_nothing_outlives_a_service_that_is_killed_and_the_next_one_goes_on(tmp_path: Path) -> None:
    with world(tmp_path) as built:
        built.push(MODEL)
        for stage in ("convert", "imatrix"):
            with service(built) as running:
                wait_until(lambda stage=stage, running=running: running.place() == stage or running.over, seconds=120, what=stage)
                assert running.kill() == []
        with service(built) as running:
            assert ended(built, running) == []
            run = running.run()
            assert run is not None
            assert (run.state, run.attempt) == ("done", 3), "each of the killed attempts counts"
            assert [stage.name for stage in running.store.stages(run.id) if stage.state == "running"] == []


def test_a_publication_that_is_refused_leaves_nothing_public(there: There) -> None:
    there.world.push(MODEL)
    there.world.proxy.rule = always(Fault(answer=403, said="You may not write here"), method="POST", path="/commit/")
    failed = there.released()
    assert failed["state"] == "failed"
    assert not there.world.publisher.repo_exists(REPO) or there.world.publisher.repo_info(REPO).private
    assert there.world.judge.faults() == []
    there.world.proxy.rule = lambda request: None
    assert there.released()["state"] == "done"
    assert there.manifest().upstream.sha == failed["release"]["sha"]
    assert not there.world.publisher.repo_info(REPO).private


def test_a_commit_whose_answer_is_lost_is_made_once(there: There) -> None:
    there.world.push(MODEL)
    there.world.proxy.rule = faults(Fault(lose=True), Fault(lose=True), method="POST", path="/commit/")
    assert there.released()["state"] == "done"
    assert there.manifest().variants
    assert len(there.world.judge.history(REPO)) == 1
    assert there.world.judge.branches() == []


def test_a_file_that_was_damaged_on_the_disk_is_made_again(there: There) -> None:
    there.world.push(MODEL)
    assert there.released()["state"] == "done"
    published = there.manifest().files
    there.world.publisher.delete_repo(REPO)
    (file,) = there.home().glob("stages/*/files/*-Q4_K_M.gguf")
    with file.open("r+b") as damaged:
        damaged.seek(-1000, 2)
        damaged.write(b"damaged")
    assert there.released()["state"] == "done"
    (name,) = [name for name in published if name.endswith("-Q4_K_M.gguf")]
    assert there.manifest().files[name].sha256 == published[name].sha256


def test_a_stage_is_done_again_when_somebody_says_so(there: There) -> None:
    there.world.push(MODEL)
    assert there.released()["state"] == "done"
    again = there.told("run", MODEL, "--recipe", there.world.recipe, "--redo", "imatrix")
    states = {stage["name"]: stage["state"] for stage in again["stages"]}
    assert (again["state"], states["imatrix"], states["convert"]) == ("done", "done", "reused")


def test_a_service_ends_in_time_while_its_run_computes(tmp_path: Path) -> None:
    with world(tmp_path) as built:
        built.push(MODEL)
        with service(built) as running:
            wait_until(lambda: running.place() == "imatrix" or running.over, seconds=120, what="a stage that computes")
            running.process.send_signal(signal.SIGTERM)
            running.process.wait(15)
            (run,) = running.store.runs()
            assert (run.state, run.attempt) == ("queued", 1), "put back, which costs nothing"
