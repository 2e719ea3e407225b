"""A worker that lost its run leaves off and publishes nothing; one that comes to nothing again and again is not started for ever."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.short_way import passed, short
from config.errors import Damaged
from service.daemon.worker import Worker
from service.execution import kept
from service.execution.workbench import Event, Listener
from service.release import lifecycle, promoting
from service.release.products import Built
from service.release.work import Work
from service.store import LeaseLost, Published, RunRecord, Store, open_store
from service.store.queue import CRASHES
from tests.service.helpers import queue_run
from tests.service.release.short_way import REPO, ShortWay

PUBLISHED = Published(repo=REPO, revision="1" * 40, url="https://hub/ours", files=("README.md",), manifest_digest="2" * 64, changed=True)


def abandoned(store: Store, worker: str = "killed") -> RunRecord:
    """The run, leased by a worker of which nothing is heard any more."""
    leased = store.lease(worker, seconds=0)
    assert leased is not None
    return leased


@pytest.mark.parametrize("stage", ["upstream", f"upload {REPO}", f"publish {REPO}"])
def test_a_worker_whose_run_was_taken_over_leaves_off_and_publishes_nothing(each_way: ShortWay, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = each_way.queued()
    slow, taken = abandoned(each_way.store), []

    def taken_over(*_: object) -> None:
        if not taken:
            taken.append(each_way.store.lease("quick", seconds=60))

    if stage == "upstream":
        taken_over()
        heard = lambda event: None  # noqa: E731
    else:
        heard = lambda event: taken_over() if (event.stage, event.state) == (stage, "started") else None  # noqa: E731
    with pytest.raises(LeaseLost):
        lifecycle.execute(each_way.store, slow, each_way.settings, heard)
    assert each_way.store.run(run.id).state == "running"
    assert each_way.store.publications(run.id) == ()
    assert not each_way.api.repo_exists(REPO) or len(each_way.commits()) == 1
    lifecycle.execute(each_way.store, taken[0], each_way.settings)
    assert each_way.store.run(run.id).state == "done"
    assert {step.state for step in each_way.store.stages(run.id)} == {"done"}
    assert len(each_way.commits()) == 2


def test_a_publication_is_recorded_under_the_lease_that_made_it_or_not_at_all(store: Store) -> None:
    run = queue_run(store)
    slow = abandoned(store)
    quick = store.lease("quick", seconds=60)
    assert quick is not None
    assert (slow.lease, quick.lease) == (1, 2)
    for late in (
        lambda: store.record_publication(run.id, PUBLISHED, lease=slow.lease),
        lambda: store.prove_lease(run.id, slow.lease),
    ):
        with pytest.raises(LeaseLost):
            late()
    assert store.publications(run.id) == ()
    assert not store.finish(run.id, state="failed", error="too late", lease=slow.lease)
    store.prove_lease(run.id, quick.lease, seconds=3600)
    assert store.renew(run.id, "quick", 0), "a lease that is held for a commit is not shortened"
    assert store.lease("third", seconds=60) is None
    assert store.record_publication(run.id, PUBLISHED, lease=quick.lease)


def test_a_run_whose_workers_come_to_nothing_is_given_up_with_the_reason(store: Store) -> None:
    run, other = queue_run(store, "upstream/a"), queue_run(store, "upstream/b")
    for _ in range(CRASHES):
        leased = store.lease("killed", seconds=0, run=run.id)
        assert leased is not None
        store.stage_started(run.id, "build Q4_K_M", "k")
    next_one = store.lease("next", seconds=60)
    assert next_one is not None
    assert next_one.id == other.id, "the others are not kept waiting"
    given_up = store.run(run.id)
    assert (given_up.state, given_up.attempt) == ("failed", CRASHES)
    assert f"ended without a word {CRASHES} times in a row, the last time at build Q4_K_M" in (given_up.error or "")
    assert {step.state for step in store.stages(run.id)} == {"interrupted"}
    actions = [event.action for event in store.audit_events(subject=f"run/{run.id}")]
    assert actions == ["failed", *["abandoned"] * CRASHES, "queued"]
    assert queue_run(store, "upstream/a", attempts=CRASHES).state == "failed", "what only hints ask for is left alone"
    assert queue_run(store, "upstream/a").state == "queued", "a person may have repaired it"


def test_workers_that_end_a_stage_each_are_no_reason_to_give_up(store: Store) -> None:
    run = queue_run(store)
    for number in range(2 * CRASHES):
        abandoned(store)
        store.stage_finished(store.stage_started(run.id, f"stage {number}", "k"), state="done", seconds=1.0)
    assert store.run(run.id).state == "interrupted"
    taken = store.lease("next", seconds=60)
    assert taken is not None
    assert taken.attempt == 2 * CRASHES + 1


def test_the_worker_goes_on_with_the_next_run(file_store: Store) -> None:
    queue_run(file_store)

    def lose(store: Store, run: RunRecord) -> None:
        worker.stop()
        raise LeaseLost

    worker = Worker(file_store, lose, name="slow", seconds=60)
    worker.work()
    assert file_store.run(1).state == "running", "whoever has it now says how it ends"


def test_a_file_that_is_damaged_when_it_is_published_is_made_again(short_way: ShortWay, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = short_way.settings.folder / "stages"
    told: list[Event] = []
    prepare, times = promoting._ready, []

    def damaged_once(work: Work, *given: Any, **named: Any) -> object:
        times.append(work)
        if len(times) == 1:
            (stages / "key" / "files").mkdir(parents=True)
            raise Damaged("model.gguf has other bytes", stages / "key" / "files" / "model.gguf")
        return prepare(work, *given, **named)

    monkeypatch.setattr(promoting, "_ready", damaged_once)
    done = short_way.carried_out(short_way.queued().id, told.append)
    assert (done["state"], len(times)) == ("done", 2)
    assert not (stages / "key").exists()
    assert any("It was thrown away, and is made now." in event.message for event in told)


@pytest.fixture
def rotten(short_way: ShortWay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Listener]:
    """A way of two variants kept as stages, files of which are too large to be read again when they are found; who hears of it lets them rot before they go."""
    monkeypatch.setattr(kept, "AFFORDABLE", 0)
    tags = ("Q4_0", "Q8_0")

    def made(work: Work) -> list[Built]:
        return [passed(tag, work.job.apart(f"build {tag}", "tests.service.stage_functions:say_so", {}, text=tag * 99)) for tag in tags]

    short(monkeypatch, tmp_path / "built", made=made)

    def rotting(times: int, told: list[Event]) -> Listener:
        left = dict.fromkeys(tags, times)

        def heard(event: Event) -> None:
            told.append(event)
            if (event.stage, event.state) == (f"upload {REPO}", "started"):
                for file in sorted((short_way.settings.folder / "stages").glob("*/files/*.gguf")):
                    if left[file.stem] and "rotten" not in file.read_text():
                        left[file.stem] -= 1
                        rot(file)

        return heard

    return rotting


def rot(file: Path) -> None:
    """Let a file have other bytes, with nobody having written to it."""
    was = file.stat()
    file.write_text("rotten".ljust(was.st_size))
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))


def test_whatever_is_damaged_is_made_again_one_thing_after_the_other(short_way: ShortWay, rotten: Callable[..., Listener]) -> None:
    told: list[Event] = []
    done = short_way.carried_out(short_way.queued().id, rotten(1, told))
    assert (done["state"], done["error"]) == ("done", None)
    assert sum("It was thrown away, and is made now." in event.message for event in told) == 2
    assert {file.read_text()[:4] for file in (short_way.settings.folder / "stages").glob("*/files/*.gguf")} == {"Q4_0", "Q8_0"}


def test_what_is_damaged_again_after_it_was_made_again_is_a_failure_of_the_disk(short_way: ShortWay, rotten: Callable[..., Listener]) -> None:
    run = short_way.queued()
    with pytest.raises(Damaged, match=r"That was done in this run, and it is damaged once more: look at the disk that .*stages lies on"):
        short_way.carried_out(run.id, rotten(9, []))
    assert short_way.store.run(run.id).state == "failed"
    assert "damaged once more" in (short_way.store.run(run.id).error or "")
    assert short_way.store.publications(run.id) == ()


def test_a_damaged_file_of_somebody_else_is_not_thrown_away(short_way: ShortWay, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(*_: object, **__: object) -> None:
        raise Damaged("LICENSE has other bytes", short_way.settings.folder / "LICENSE")

    monkeypatch.setattr(promoting, "_ready", damaged)
    run = short_way.queued()
    with contextlib.suppress(Damaged):
        short_way.carried_out(run.id)
    assert (short_way.store.run(run.id).state, short_way.store.run(run.id).error) == ("failed", "LICENSE has other bytes")


def test_repos_that_are_to_be_opened_are_remembered_by_every_service_on_a_database(store: Store, database_url: str) -> None:
    other = open_store(database_url)
    assert not other.opening(REPO)
    store.begin_opening(REPO)
    assert other.opening(REPO)
    other.audit("command", f"repo/{REPO}", "adopted", {})
    assert store.opening(REPO)
    other.end_opening(REPO)
    assert not store.opening(REPO)
    assert not store.opening("ours/other")
    store.begin_opening(REPO)
    other.begin_opening(REPO)
    store.found_instead(REPO)
    assert store.opening(REPO), "the other one made it"
    other.found_instead(REPO)
    assert not store.opening(REPO), "neither did"
    store.begin_opening(REPO)
    other.not_made(REPO)
    assert not store.opening(REPO)
    other.close()
