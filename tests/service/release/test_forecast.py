"""Estimates put together, and what earlier runs teach about them."""

import math
from typing import Any, cast

import pytest

from service.machine.speed import Speed
from service.release.forecast import LEAST, MOST, corrections, forecast, kind_of
from service.release.graph import Cost, Needs, Phase, Stage, graph_of
from service.release.prospect import Prospect

NOWHERE = cast(Prospect, None)  # these costs look at nothing


def needs(**values: Any) -> Cost:
    return lambda prospect, speed: Needs(**values)


GRAPH = graph_of(
    [
        Stage(name="convert", phase=Phase.EXAMINE, does="", work=print, cost=needs(seconds=10, memory=500, disk=70)),
        Stage(name="build Q4_K_M", phase=Phase.BUILD, does="", work=print, also=("convert",), cost=needs(seconds=20, memory=900, disk=30, gpu=True)),
        Stage(name="build Q8_0", phase=Phase.BUILD, does="", work=print, also=("convert",), cost=needs(seconds=5, memory=100, disk=60)),
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


def test_corrections_are_of_a_kind_of_stage() -> None:
    found = forecast(GRAPH, NOWHERE, Speed(threads=1), {"build": 2.0, "build in transformers": 9.0}, ())
    assert [item.seconds for item in found.stages.values()] == [10, 40, 10]


def test_few_observations_move_an_estimate_little_and_many_move_it_all_the_way() -> None:
    one, ten, many = (corrections([("build Q4_K_M", 10.0, 30.0)] * count)["build"] for count in (1, 10, 1000))
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


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("imatrix check", "imatrix check"),
        ("build UD-Q4_K_XL", "build"),
        ("build bnb-4bit", "build in transformers"),
        ("measure dynamic-bnb-4bit", "measure in transformers"),
        ("divergence 2 from 8 to 16 windows", "divergence"),
        ("divergence 16bit from 8 to 16 windows", "divergence in transformers"),
        ("reference", "reference"),
        ("reference 16bit", "reference in transformers"),
        ("sensitivity of NF4", "sensitivity of"),
        ("sensitivity", "sensitivity"),
        ("publish acme/tiny-chat-GGUF", "publish"),
    ],
)
def test_a_kind_is_a_name_without_its_variant(name: str, kind: str) -> None:
    assert kind_of(name) == kind
