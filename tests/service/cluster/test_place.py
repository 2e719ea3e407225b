"""What the cluster's place does of its own: waits for machines, brings what a stage made. Its cluster is made up: no real one loses its way at command."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from config import sharing
from config.digests import file_sha256
from config.errors import ClusterUnavailable, StageError
from service.cluster import faults, tasks
from service.cluster.faults import Lost
from service.cluster.tasks import RayPlace
from service.execution.artifacts import ArtifactStore
from service.execution.leaving import Away
from service.execution.process import Limits, Request
from service.pulse import Pulse

ONE = {"NodeID": "1", "Alive": True, "NodeManagerHostname": "one", "NodeManagerAddress": "10.0.0.1", "Resources": {"CPU": 1.0, "memory": 2.0**30}}


class Told:
    """A cluster that says of its machines what it is told to say, and nothing else."""

    def __init__(self, *answers: list[Mapping[str, Any]] | Exception) -> None:
        self.answers = list(answers)  # the last one for ever

    def nodes(self) -> list[Mapping[str, Any]]:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def place_at(tmp_path: Path, *answers: list[Mapping[str, Any]] | Exception) -> RayPlace:
    store = ArtifactStore(f"file://{tmp_path}/store")
    return RayPlace(ray=Told(*answers), store=store, blobs=tmp_path / "blobs", threads=1, patience=300.0, told=lambda said: None)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which passes only where somebody waits."""
    found = [1000.0]
    monkeypatch.setattr(tasks, "now", lambda: found[0])
    monkeypatch.setattr(tasks.time, "sleep", lambda seconds: found.__setitem__(0, found[0] + seconds))
    return found


def test_a_cluster_that_does_not_say_its_machines_for_a_moment_is_asked_again(tmp_path: Path, clock: list[float]) -> None:
    place = place_at(tmp_path, ConnectionError("timed out"), ConnectionError("timed out"), [ONE])
    with place.turn():
        assert place.lanes() == 1
    assert clock[0] < 1000.0 + 10


def test_the_patience_counts_from_when_there_is_no_machine(tmp_path: Path, clock: list[float]) -> None:
    place = place_at(tmp_path, *[[ONE]] * 400, [], [ONE])
    with place.turn():
        waited: list[float] = []

        def free(sign: str, doing: str = "", **_: object) -> None:
            if clock[0] > 1000.0 + 900 and not waited:  # an hour's work of another stage ends
                waited.append(clock[0])
                place._busy -= 1

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tasks.pulse, "beat", free)
            with place.turn():
                assert waited


def test_without_a_machine_for_longer_it_is_away_and_says_why(tmp_path: Path, clock: list[float]) -> None:
    with pytest.raises(Away, match=r"^The Ray cluster has had no node with CPUs for 300 seconds\.$"), place_at(tmp_path, []).turn():
        pytest.fail("there is a turn")
    with pytest.raises(Away, match=r"^The Ray cluster does not answer: ConnectionError: gone$"), place_at(tmp_path, ConnectionError("gone")).turn():
        pytest.fail("there is a turn")
    assert clock[0] >= 1000.0 + 600


def test_who_waits_for_a_machine_is_not_stuck(tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    pulse = Pulse()
    monkeypatch.setattr(tasks, "pulse", pulse)
    place = place_at(tmp_path, [], [ONE])
    with pulse.part("worker", limit=600), place.turn():
        assert [sign.doing for sign in pulse.signs()] == ["waits for the cluster"]


def test_a_stage_begun_when_all_machines_were_gone_asks_for_what_the_next_one_has(tmp_path: Path, clock: list[float]) -> None:
    wide = ONE | {"Resources": {"CPU": 16.0, "GPU": 1.0, "memory": 64.0 * 2**30}}
    place = place_at(tmp_path, [], [], [wide])
    options, cpus = place._options(Limits(seconds=1, memory_bytes=None, threads=8, request=Request(memory=2**34, gpu=True)), threaded=True)
    assert (cpus, options["num_cpus"], options["num_gpus"], options["memory"]) == (8, 8, 1, 2**34)


def test_a_stage_elsewhere_has_the_bounds_that_one_has_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, orders = place_at(tmp_path, [ONE]), list[dict[str, Any]]()

    def done(order: dict[str, Any], *_: object) -> dict[str, Any]:
        orders.append(order)
        return {"files": [], "result": {}}

    monkeypatch.setattr(place, "_done", done)
    limits = Limits(seconds=60, memory_bytes=2**30, threads=4, silence=30)
    for params in ({"threads": 4, "tokens": 5}, {"tokens": 5}):
        place.run("a:stage", tmp_path, {}, params, limits=limits, log=tmp_path / "log")
    assert [order["params"] for order in orders] == [{"threads": 1, "tokens": 5}, {"tokens": 5}]
    assert {Limits(**order["limits"]) for order in orders} == {Limits(seconds=60, memory_bytes=2**30, threads=1, silence=30)}


def test_what_is_brought_once_more_is_not_written_into_what_is_kept(tmp_path: Path) -> None:
    place, folder = place_at(tmp_path, [ONE]), tmp_path / "files"
    place.blobs.mkdir()
    folder.mkdir()
    large, other = (tmp_path / name for name in ("large", "other"))
    large.write_bytes(os.urandom(sharing.LEAST))
    other.write_bytes(b"other")
    first, second = ({"path": path.name, "sha256": file_sha256(path)} for path in (large, other))
    sharing.share(large, first["sha256"], place.blobs)
    before = large.stat()
    with pytest.raises(Lost, match="does not have the file"):
        place._bring([first, second], folder)
    assert list(folder.iterdir()) == [], "another time may make other files"
    for path, file in ((large, first), (other, second)):
        place.store.put(path, file["sha256"])
    place._bring([first, second], folder)
    assert (folder / "large").samefile(large)
    assert (large.stat().st_mtime_ns, large.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def errors() -> dict[str, tuple[Callable[[Any], Exception], type[Exception] | None, str]]:
    """What Ray raises; what is raised in the end where it does so each time, None where the stage may be to blame; and what is said of it."""
    return {
        "node": (lambda known: known.NodeDiedError("gone"), None, r"The node one was lost \(NodeDiedError\)\."),
        "worker": (lambda known: known.WorkerCrashedError(), None, r"The node one was lost \(WorkerCrashedError\)\."),
        "memory": (lambda known: known.OutOfMemoryError("low"), None, r"The node one was lost \(OutOfMemoryError\)\."),
        "errand": (lambda known: known.RayTaskError("carry_out", "trace", OSError("no disk")), StageError, r"one could not carry it out \(OSError: no disk\)"),
        "system": (lambda known: known.RaySystemError("broken pipe"), ClusterUnavailable, r"Ray failed at it \(RaySystemError: .*broken pipe"),
        "raylet": (lambda known: known.LocalRayletDiedError(), ClusterUnavailable, r"Ray failed at it \(LocalRayletDiedError: "),
        "cancelled": (lambda known: known.TaskCancelledError(), ClusterUnavailable, r"Ray failed at it \(TaskCancelledError: "),
        "environment": (lambda known: known.RuntimeEnvSetupError("no"), ClusterUnavailable, r"Ray failed at it \(RuntimeEnvSetupError: "),
        "late": (lambda known: known.GetTimeoutError("late"), ClusterUnavailable, r"Ray failed at it \(GetTimeoutError: late"),
    }


@pytest.mark.parametrize("which", errors())
def test_what_ray_raises_is_never_the_stage_s_own_failure(which: str) -> None:
    ray = pytest.importorskip("ray", reason="the extra `ray` is not installed: `make test-ray` does that, or pip install -r requirements-ray.lock")
    make, reason, said = errors()[which]
    lost = faults.of_ray(ray, make(ray.exceptions), "one")
    assert lost.counts
    assert (lost.reason if lost.reason is None else type(lost.reason)) == reason
    with pytest.raises(Lost, match=said):
        raise lost
