"""Each time that a run was carried out is told, with how that ended: also where a process was killed, which nobody writes down but the next one."""

import pytest

from service.runs.attempts import attempts_of
from service.store import Store
from service.store.queue import CRASHES
from tests.service.helpers import queue_run


def kill(store: Store, run: int, stage: str | None = None) -> None:
    """Let a worker take the run, and end without a word."""
    assert store.lease("killed", seconds=0, run=run) is not None
    if stage is not None:
        store.stage_started(run, stage, "k")


@pytest.mark.parametrize("crashes", range(1, CRASHES))
def test_attempts_whose_process_was_killed_are_told_like_the_others(store: Store, crashes: int) -> None:
    run = queue_run(store).id
    for number in range(crashes):
        kill(store, run, f"stage {number}")
    taken = store.lease("next", seconds=60)
    assert taken is not None
    told = attempts_of(store, run)
    assert [item.attempt for item in told] == list(range(1, taken.attempt + 1)), "as many as the run says"
    assert [(item.trigger, item.outcome) for item in told] == [
        ("test", "interrupted"),
        *[("takeover", "interrupted")] * (crashes - 1),
        ("takeover", None),
    ]
    assert [item.error for item in told[:-1]] == [f"The process that carried it out ended without a word, at stage {number}." for number in range(crashes)]
    assert all(item.ended is not None for item in told[:-1])
    store.finish(run, state="done")
    assert attempts_of(store, run)[-1].outcome == "done"


def test_the_attempt_that_was_one_too_many_failed_and_no_other_follows_it_by_itself(store: Store) -> None:
    run = queue_run(store).id
    for _ in range(CRASHES):
        kill(store, run)
    assert attempts_of(store, run)[-1].outcome == "interrupted", "though nobody has come to take it over"
    assert store.lease("next", seconds=60) is None
    told = attempts_of(store, run)
    assert [item.attempt for item in told] == list(range(1, store.run(run).attempt + 1))
    assert [item.outcome for item in told] == [*["interrupted"] * (CRASHES - 1), "failed"]
    assert told[-1].error == store.run(run).error
    queue_run(store)
    assert [(item.attempt, item.trigger, item.outcome) for item in attempts_of(store, run)[CRASHES:]] == [(CRASHES + 1, "test", None)]


def test_runs_put_back_for_the_hub_and_put_aside_are_still_at_their_attempt(store: Store) -> None:
    run = queue_run(store).id
    kill(store, run)
    taken = store.lease("next", seconds=60)
    assert taken is not None
    store.defer(run, taken.lease, error="the Hub is down", seconds=0)
    store.lease("next", seconds=60, run=run)
    store.finish(run, state="paused")
    store.resume(run, source="test", details={})
    assert [(item.attempt, item.outcome) for item in attempts_of(store, run)] == [(1, "interrupted"), (2, None)]
    assert store.run(run).attempt == 2
