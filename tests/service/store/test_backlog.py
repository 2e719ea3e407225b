"""Runs that nobody takes are told as stuck: not those that wait for their time, or for workers that are at others."""

from datetime import timedelta

import pytest

from bench.clock import Clock
from service.store import Store
from service.store.backlog import UNTAKEN
from tests.service.helpers import queue_run

LONG = UNTAKEN + timedelta(minutes=1)


@pytest.fixture(autouse=True)
def _time(clock: Clock) -> None:
    """Stands still until it is set."""


def test_what_no_worker_takes_is_stuck_after_a_while(store: Store, clock: Clock) -> None:
    assert not store.backlog().stuck
    queue_run(store)
    began = clock.at
    clock.at += UNTAKEN
    assert not store.backlog().stuck
    clock.at += timedelta(minutes=1)
    found = store.backlog()
    assert (found.runs, found.since, found.untaken, found.stuck) == (1, began, began, True)
    assert found.told.startswith(f"No worker has taken any of 1 run in the queue since {began:%Y-%m-%d %H:%M} UTC, and none is at another one.")
    assert store.lease("worker", seconds=60) is not None
    assert not store.backlog().stuck


def test_runs_that_wait_behind_another_are_not_stuck_nor_just_after_its_end(store: Store, clock: Clock) -> None:
    first = queue_run(store, "upstream/a").id
    queue_run(store, "upstream/b")
    store.lease("worker", seconds=10 * LONG.total_seconds(), run=first)
    clock.at += 5 * LONG
    assert (store.backlog().runs, store.backlog().stuck) == (1, False)
    store.finish(first, state="done")
    clock.at += UNTAKEN
    assert not store.backlog().stuck, "a worker was at work until then"
    clock.at += timedelta(minutes=1)
    assert store.backlog().stuck


def test_a_worker_that_died_is_not_at_work(store: Store, clock: Clock) -> None:
    first = queue_run(store, "upstream/a").id
    queue_run(store, "upstream/b")
    store.lease("worker", seconds=60, run=first)
    clock.at += LONG
    assert store.backlog().stuck


def test_a_run_that_waits_for_the_hub_is_not_stuck_until_its_time_has_long_come(store: Store, clock: Clock) -> None:
    run = queue_run(store)
    leased = store.lease("worker", seconds=60)
    assert leased is not None
    store.defer(run.id, leased.lease, error="The Hub is down.", seconds=7200)
    clock.at += timedelta(seconds=7199)
    assert (store.backlog().runs, store.backlog().stuck) == (0, False)
    clock.at += UNTAKEN
    assert (store.backlog().runs, store.backlog().stuck) == (1, False)
    clock.at += timedelta(minutes=1)
    assert store.backlog().stuck


def test_a_run_that_somebody_put_aside_is_not_stuck(store: Store, clock: Clock) -> None:
    store.pause(queue_run(store).id, source="test", details={})
    clock.at += LONG
    assert not store.backlog().stuck


def test_a_run_that_was_put_back_after_a_stage_is_not_stuck_at_once(store: Store, clock: Clock) -> None:
    run = queue_run(store).id
    store.lease("worker", seconds=5 * LONG.total_seconds())
    clock.at += 2 * LONG
    store.stage_started(run, "convert", "k")
    store.release(run, "worker")
    clock.at += UNTAKEN
    assert not store.backlog().stuck
    clock.at += timedelta(minutes=1)
    assert store.backlog().stuck
