"""A clock that was years ahead, and was set right: what was put off then is not put off for years."""

from datetime import UTC, datetime

import pytest

from service.store import Message, Store
from tests.service.helpers import queue_run

YEARS = 5 * 365 * 86_400.0  # seconds that the clock was ahead
DAY = 86_400.0


def soon(at: datetime) -> bool:
    return abs((at - datetime.now(UTC)).total_seconds()) < 60


@pytest.mark.parametrize(("seconds", "taken"), [(DAY, False), (YEARS, True)])
def test_a_run_that_waits_for_the_hub_does_so_for_a_day_at_most(store: Store, seconds: float, taken: bool) -> None:
    run = queue_run(store)
    told = store.defer(run.id, store.lease("worker", seconds=60).lease, error="The Hub is down.", seconds=seconds).due
    assert soon(told) is taken
    assert store.backlog().runs == taken
    assert (store.lease("worker", seconds=60) is not None) is taken


@pytest.mark.parametrize(("seconds", "taken"), [(DAY, False), (YEARS, True)])
def test_so_do_looks_and_what_is_still_to_do_and_messages(store: Store, seconds: float, taken: bool) -> None:
    run = queue_run(store).id
    store.put_hints({"upstream/model": "poll"})
    store.defer_hint(store.hints()[0], error="down", seconds=seconds)
    assert bool(store.hints(due=True)) is taken
    assert soon(store.hints()[0].due) is taken

    store.put_follow_up(run, "collection", {}, error="down", seconds=seconds, source="poll")
    assert soon(store.follow_ups()[0].due) is taken
    assert (store.take_follow_up("collection") is not None) is taken

    store.ends_untold("team")  # from now on
    store.put_messages("team", [Message(event=1, subject=f"run/{run}", ending="failed", body="{}")], upto=1)
    store.delivery_ended(store.take_delivery(["team"]).id, error="down", again_in=seconds)
    assert (store.take_delivery(["team"]) is not None) is taken


def test_a_lease_of_another_host_that_is_gone_does_not_hold_for_years(store: Store) -> None:
    run = queue_run(store)
    store.lease("elsewhere/1/2/3", seconds=YEARS)
    assert store.run(run.id).state == "interrupted"
    assert store.lease("worker", seconds=60).id == run.id


def test_a_worker_that_lives_has_a_lease_of_the_right_length_again(store: Store) -> None:
    run = queue_run(store)
    leased = store.lease("worker", seconds=YEARS)
    store.renew(run.id, "worker", 60)
    assert store.run(run.id).state == "running"
    assert store.lease("other", seconds=60) is None
    store.prove_lease(run.id, leased.lease, seconds=120)
    assert store.run(run.id).state == "running"
