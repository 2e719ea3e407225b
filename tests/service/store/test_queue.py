import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from config.words import Release, Rollback
from service.store import Store, UnknownRun, open_store, order_of, worker_name
from tests.service.helpers import SHA, order, queue_run

LEASE_ALL = """
import sys
from service.store import open_store
store = open_store(sys.argv[1])
sys.stdin.readline()
while (run := store.lease(sys.argv[2], seconds=60)) is not None:
    print(run.id)
"""

DIE_WITH_LEASE = """
import os, signal, sys
from service.store import open_store, worker_name
assert open_store(sys.argv[1]).lease(worker_name(), seconds=3600) is not None
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_same_release_recipe_and_namespace_is_one_run(store: Store) -> None:
    first, created = store.enqueue(order(trigger="poll"))
    second, again = store.enqueue(order(recipe="renamed", trigger="webhook"), attempts=3)
    assert (created, again) == (True, False)
    assert second == first
    assert (first.state, first.attempt, first.trigger, first.release, first.private) == ("queued", 1, "poll", Release(repo="upstream/model", sha=SHA), False)
    assert queue_run(store, recipe_digest="e" * 64).id != first.id
    assert queue_run(store, namespace="theirs").id != first.id
    assert queue_run(store, release=Release(repo="upstream/model", sha=SHA[::-1])).id != first.id


@pytest.mark.parametrize("state", ["done", "blocked"])
def test_a_finished_run_is_queued_again_only_on_demand(store: Store, state: str) -> None:
    run = queue_run(store)
    store.lease("worker", seconds=60)
    assert store.finish(run.id, state=state, disk_high_water=5)
    assert queue_run(store).state == state
    again = queue_run(store, again=True, trigger="republish")
    assert (again.id, again.state, again.attempt, again.trigger, again.started, again.finished) == (run.id, "queued", 2, "republish", None, None)
    assert queue_run(store, again=True).attempt == 2


def test_a_failed_run_is_queued_again_until_its_attempts_are_used_up(store: Store) -> None:
    run = queue_run(store)
    for attempt in (1, 2):
        assert store.lease("worker", seconds=60).attempt == attempt
        store.finish(run.id, state="failed", error="the Hub is down")
        assert store.run(run.id).error == "the Hub is down"
        queue_run(store, attempts=2)
    assert store.run(run.id).state == "failed"
    assert queue_run(store).attempt == 3
    assert store.run(run.id).error is None


def test_what_was_once_asked_to_be_private_stays_so_while_it_is_at_work(store: Store) -> None:
    queue_run(store)
    assert queue_run(store, private=True).private
    run = queue_run(store)
    assert run.private
    store.lease("worker", seconds=60)
    store.finish(run.id, state="done")
    assert not queue_run(store, again=True).private  # upstream was opened meanwhile


def test_the_run_that_waits_longest_is_leased_first_and_only_once(store: Store) -> None:
    first, second = queue_run(store, "upstream/a"), queue_run(store, "upstream/b")
    leased = store.lease("one", seconds=60)
    assert (leased.id, leased.state, leased.worker) == (first.id, "running", "one")
    assert leased.started is not None
    assert abs((datetime.now(UTC) - leased.started).total_seconds()) < 60
    assert store.lease("two", seconds=60).id == second.id
    assert store.lease("three", seconds=60) is None


def test_a_wanted_run_is_leased_out_of_turn(store: Store) -> None:
    queue_run(store, "upstream/a")
    wanted = queue_run(store, "upstream/b")
    assert store.lease("one", seconds=60, run=wanted.id).id == wanted.id
    assert store.lease("two", seconds=60, run=wanted.id) is None


def test_a_lease_that_ran_out_goes_to_another_worker(store: Store) -> None:
    run = queue_run(store)
    store.lease("slow", seconds=0)
    assert store.run(run.id).state == "interrupted"
    taken = store.lease("quick", seconds=60)
    assert (taken.id, taken.worker, taken.attempt) == (run.id, "quick", 2)
    assert not store.renew(run.id, "slow", 60)
    assert not store.release(run.id, "slow")
    assert not store.finish(run.id, state="done", lease=1)
    assert store.renew(run.id, "quick", 60)
    assert store.finish(run.id, state="done", lease=2)
    assert not store.finish(run.id, state="failed", error="too late")
    assert store.run(run.id).state == "done"


def test_a_released_run_keeps_its_place(store: Store) -> None:
    first, _ = queue_run(store, "upstream/a"), queue_run(store, "upstream/b")
    store.lease("one", seconds=60)
    assert store.release(first.id, "one")
    assert store.run(first.id).worker is None
    assert store.lease("two", seconds=60).id == first.id


def test_a_killed_process_loses_its_lease_at_once(store: Store, database_url: str) -> None:
    run = queue_run(store)
    subprocess.run([sys.executable, "-c", DIE_WITH_LEASE, database_url], check=False, timeout=60)
    assert store.run(run.id).state == "interrupted"
    assert [item.id for item in store.runs(state="interrupted")] == [run.id]
    assert store.runs(state="running") == ()
    assert store.lease(worker_name(), seconds=60).id == run.id
    assert store.run(run.id).state == "running"
    assert store.runs(state="interrupted") == ()
    assert [item.state for item in store.runs(state="running")] == ["running"]
    assert store.lease("other", seconds=60) is None  # this process lives


def test_processes_never_lease_the_same_run(store: Store, database_url: str) -> None:
    runs = {queue_run(store, f"upstream/model-{number}").id for number in range(40)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen([sys.executable, "-c", LEASE_ALL, database_url, f"worker-{number}"], **pipes) for number in range(3)]
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    leased = [int(line) for worker in workers for line in worker.communicate(timeout=60)[0].split()]
    assert len(leased) == len(runs)
    assert set(leased) == runs


def test_threads_that_queue_the_same_release_make_one_run(store: Store) -> None:
    start = threading.Barrier(8)

    def put(_: int) -> tuple[int, bool]:
        start.wait()
        run, created = store.enqueue(order())
        return run.id, created

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(put, range(8)))
    assert len({run for run, _ in results}) == 1
    assert sum(created for _, created in results) == 1


def test_runs_are_listed_newest_first_by_state_and_page(store: Store) -> None:
    ids = [queue_run(store, f"upstream/{name}").id for name in "abc"]
    store.lease("worker", seconds=60)
    assert [run.id for run in store.runs()] == ids[::-1]
    assert [run.id for run in store.runs(limit=1)] == ids[2:]
    assert [run.id for run in store.runs(before=ids[2], limit=1)] == ids[1:2]
    assert [run.id for run in store.runs(state="running")] == ids[:1]


def test_an_unknown_run_is_said_to_be_unknown(store: Store) -> None:
    with pytest.raises(UnknownRun, match="no run 99"):
        store.run(99)
    assert store.lease("worker", seconds=1, run=99) is None


def test_runs_outlive_the_store(store: Store, database_url: str) -> None:
    run = queue_run(store)
    store.close()
    reopened = open_store(database_url)
    assert reopened.run(run.id) == run
    reopened.close()


def test_what_happened_to_a_run_is_in_the_audit_trail(store: Store) -> None:
    run = queue_run(store, trigger="poll")
    store.lease("worker", seconds=60)
    store.finish(run.id, state="failed", error="no disk")
    queue_run(store, trigger="api")
    events = store.audit_events(subject=f"run/{run.id}")[::-1]
    assert [(event.source, event.action) for event in events] == [("poll", "queued"), ("poll", "failed"), ("api", "queued")]
    assert events[1].details == {"error": "no disk"}
    assert events[0].details == {"repo": "upstream/model", "sha": SHA, "recipe": "default", "attempt": 1}


def test_a_run_that_leaves_its_repos_in_a_folder_is_one_of_its_own(store: Store) -> None:
    published = queue_run(store)
    left = queue_run(store, target="/out" + "/long" * 100, folder="/model", quick=True)
    assert left.id != published.id
    assert (left.namespace, left.target, left.folder, left.quick) == ("ours", "/out" + "/long" * 100, "/model", True)
    assert (published.target, published.folder, published.quick) == (None, None, False)
    assert queue_run(store, target="/elsewhere").id not in {left.id, published.id}
    moved = queue_run(store, target=left.target, folder="/moved")
    assert (moved.id, moved.folder) == (left.id, "/moved")
    assert store.ordered(order_of(moved, trigger="republish")).id == left.id
    assert store.ordered(order()).id == published.id


def test_what_a_person_decided_is_not_asked_again_because_a_poll_sees_it_too(store: Store) -> None:
    decided = Rollback(sha="2" * 40, place=None, by="Ada", comment="Broken.")
    seen = replace(decided, by=None, comment="It moved.")
    assert queue_run(store, rollback=decided, trigger="rollback").rollback == decided
    assert queue_run(store, rollback=seen, again=True).rollback == decided
    run = store.lease("worker", seconds=60)
    assert queue_run(store, rollback=seen, again=True).rollback == decided
    assert queue_run(store, rollback=replace(seen, sha="3" * 40), again=True).rollback.sha == "3" * 40, "what is newer still was not decided"
    store.finish(run.id, state="done")
    queue_run(store, rollback=decided, again=True)
    store.lease("worker", seconds=60)
    store.finish(run.id, state="done")
    assert queue_run(store, rollback=seen, again=True).rollback == seen
