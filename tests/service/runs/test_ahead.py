"""What of a run is still to come, on both databases."""

from datetime import timedelta

import pytest

from config.progress import Progress
from service.runs.ahead import ahead
from service.runs.summary import summarize
from service.store import Foretold, Store
from tests.service.helpers import queue_run

EXPECTED = {"fix": 1.0, "divergence": 100.0, "measure Q4_0": 20.0, "publish": 30.0}


@pytest.fixture
def run(store: Store) -> int:
    queued = queue_run(store).id
    store.lease("worker", seconds=600)
    store.record_forecast(queued, {name: Foretold(like=name, reckoned=seconds / 2, correction=2.0) for name, seconds in EXPECTED.items()})
    return queued


def test_a_run_knows_where_it_is_and_what_comes_after(store: Store, run: int) -> None:
    assert store.forecast(run)["divergence"].seconds == 100
    assert ahead(store.forecast(run), store.stages(run)) is None, "nothing has begun"
    store.stage_reused(run, "fix", "k", stage="fix", seconds=0.1, artifacts=())
    store.stage_finished(store.stage_started(run, "divergence 1", "k", stage="divergence"), state="done", seconds=40)
    number = store.stage_started(run, "divergence 16bit", "k", stage="divergence")
    steps = store.stages(run)
    going = ahead(store.forecast(run), steps)
    assert going is not None
    assert (going.stage, going.estimate, going.coming) == ("divergence", 100, {"measure Q4_0": 20, "publish": 30})
    assert going.left(steps, going.began) == 150
    assert going.left(steps, going.began + timedelta(seconds=70)) == 80
    assert going.left(steps, going.began + timedelta(seconds=500)) == 50, "what takes longer than was said is about to end"

    store.stage_progressed(number, Progress(done=0, total=1000, unit="windows"))
    found = summarize(store, run)
    assert found.coming == ["measure Q4_0", "publish"]
    assert found.left == pytest.approx(150, abs=5)
    store.finish(run, state="done")
    assert (summarize(store, run).left, summarize(store, run).coming) == (None, [])


def test_what_runs_took_is_told_beside_what_was_foretold(store: Store, run: int) -> None:
    store.stage_reused(run, "fix", "k", stage="fix", seconds=0.1, artifacts=())
    for step, seconds in (("divergence 1", 40), ("divergence 2", 2), ("divergence 1", 50)):  # the first was done again
        store.stage_finished(store.stage_started(run, step, "k", stage="divergence"), state="done", seconds=seconds)
    store.stage_finished(store.stage_started(run, "some remark", "k"), state="done", seconds=7)
    assert store.forecasts() == (), "not before the run came to its end"
    store.finish(run, state="blocked")
    ((foretold, taken),) = store.forecasts()
    assert foretold["publish"] == Foretold(like="publish", reckoned=15, correction=2)
    assert taken == {"divergence": 52}


def test_a_forecast_is_of_one_attempt(store: Store, run: int) -> None:
    store.finish(run, state="failed")
    assert queue_run(store, again=True).attempt == 2
    assert store.forecast(run) == {}
