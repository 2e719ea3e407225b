"""Estimates put together, and what earlier runs teach about them."""

import math
from typing import Any, cast

import pytest

from service.machine.speed import Speed
from service.release.forecast import LEAST, MOST, corrections, forecast, learned
from service.release.graph import Cost, Needs, Phase, Stage, graph_of
from service.release.prospect import Prospect
from service.store import Store
from tests.service.helpers import queue_run

NOWHERE = cast(Prospect, None)  # these costs look at nothing


def needs(**values: Any) -> Cost:
    return lambda prospect, speed: Needs(**values)


GRAPH = graph_of(
    [
        Stage(name="convert", phase=Phase.EXAMINE, does="", work=print, cost=needs(seconds=10, memory=500, disk=70)),
        Stage(
            name="build Q4_K_M",
            variant="Q4_K_M",
            phase=Phase.BUILD,
            does="",
            work=print,
            also=("convert",),
            cost=needs(seconds=20, memory=900, disk=30, gpu=True),
        ),
        Stage(name="build Q8_0", variant="Q8_0", phase=Phase.BUILD, does="", work=print, also=("convert",), cost=needs(seconds=5, memory=100, disk=60)),
    ]
)


def test_seconds_and_disk_add_up_and_memory_is_the_largest() -> None:
    found = forecast(GRAPH, NOWHERE, Speed(threads=1), {}, ())
    assert list(found.stages) == ["convert", "build Q4_K_M", "build Q8_0"]
    assert (found.seconds, found.memory, found.disk) == (35, 900, 160)
    assert found.stages["build Q4_K_M"].gpu


def test_what_is_done_takes_no_time_and_no_memory_but_its_disk() -> None:
    found = forecast(GRAPH, NOWHERE, Speed(threads=1), {}, {"build Q4_K_M", "of another graph"})
    assert (found.seconds, found.memory, found.disk) == (15, 500, 160)
    assert found.kept == {"build Q4_K_M"}
    assert forecast(GRAPH, NOWHERE, Speed(threads=1), {}, [stage.name for stage in GRAPH.stages]).memory == 0


def test_corrections_are_of_stages_that_are_alike() -> None:
    found = forecast(GRAPH, NOWHERE, Speed(threads=1), {"build: ": 2.0, "build: otherwise": 9.0}, ())
    assert [item.seconds for item in found.stages.values()] == [10, 40, 10]


def test_few_observations_move_an_estimate_little_and_many_move_it_all_the_way() -> None:
    one, ten, many = (corrections([("build", 10.0, 30.0)] * count)["build"] for count in (1, 10, 1000))
    assert one == pytest.approx(3 ** (1 / 3))
    assert 1 < one < ten < many < 3
    assert many == pytest.approx(3, rel=0.01)


def test_the_mean_is_geometric_and_bounded() -> None:
    assert corrections([("imatrix", 10.0, 20.0), ("imatrix", 10.0, 5.0)])["imatrix"] == pytest.approx(1)
    assert corrections([("imatrix", 1.0, 1e6)] * 50)["imatrix"] == pytest.approx(MOST)
    assert corrections([("imatrix", 1e6, 1.0)] * 50)["imatrix"] == pytest.approx(1 / MOST)


def test_what_says_nothing_is_left_out() -> None:
    assert corrections([("judge", LEAST / 2, 1.0), ("judge", 1.0, 0.0), ("judge", math.nan, 1.0), ("judge", math.inf, 1.0)]) == {}
    assert corrections([]) == {}


def test_a_database_teaches_by_what_stages_have_in_common(file_store: Store) -> None:
    run = queue_run(file_store).id
    file_store.lease("worker", seconds=60)
    first = forecast(GRAPH, NOWHERE, Speed(threads=1), {}, ())
    file_store.record_forecast(run, first.foretold)
    for stage, step, seconds in (
        ("convert", "convert", 10.0),
        ("build Q4_K_M", "build Q4_K_M", 60.0),
        ("build Q8_0", "one part", 5.0),
        ("build Q8_0", "another", 10.0),
    ):
        file_store.stage_finished(file_store.stage_started(run, step, "k", stage=stage), state="done", seconds=seconds)
    file_store.finish(run, state="done")
    taught = learned(file_store)
    assert taught == {"convert: ": pytest.approx(1), "build: ": pytest.approx(9 ** (1 / 4))}, "each took three times as long, with a prior of two"
    again = forecast(GRAPH, NOWHERE, Speed(threads=1), taught, ())
    assert again.seconds == pytest.approx(10 + 25 * 3**0.5)
    assert again.foretold["build Q8_0"].reckoned == 5, "what is taught next is compared with what was reckoned"
