"""What the executor does with a graph: which failures end the way, which cost only what takes them, and what a gate on the release ends."""

from collections.abc import Callable

import pytest

from config.errors import ConfigurationError, MeasurementError, SluiceError
from service.release import abreast, executor
from service.release.graph import Phase
from service.release.job import Job
from service.release.lifecycle import named
from service.release.way import way as way_of
from tests.service.release.walk import Walk, fail, share


@pytest.fixture(params=[executor.carry_out, abreast.carry_out], ids=["one after another", "abreast"])
def walk(request: pytest.FixtureRequest, job: Job) -> Callable[[], Walk]:
    """An empty graph, for either executor."""
    return lambda: Walk(job, request.param)


def test_a_failure_that_is_the_run_s_ends_it(walk: Callable[[], Walk]) -> None:
    way = walk()
    way.stage("a", does=fail)
    way.stage("b", after=("a",))
    with pytest.raises(MeasurementError, match="it broke"):
        way.carry_out()
    assert way.done == ["a"]


def test_a_failure_alone_costs_what_takes_it_and_nothing_else(walk: Callable[[], Walk]) -> None:
    way = walk()
    way.stage("a", does=fail, alone=True)
    way.stage("takes", "a")
    way.stage("further", "takes")
    way.stage("beside", does=lambda work: 7)
    way.stage("together", "further", "beside", does=lambda work: work.maybe("beside", int), tolerant=True)
    ended, work = way.carry_out()
    assert ended == "blocked", "nothing was judged"
    assert sorted(way.done) == ["a", "beside", "together"]
    assert work.of("together", int) == 7
    assert work.failed.keys() == {"a", "takes", "further"}
    with pytest.raises(SluiceError, match="it broke"):
        work.output("further")
    with pytest.raises(TypeError, match="the product of beside is a int, not a str"):
        work.of("beside", str)


def test_a_stage_sees_what_it_takes_and_nothing_else(walk: Callable[[], Walk]) -> None:
    way = walk()
    way.stage("a", does=lambda work: 7)
    way.stage("b", "a", does=lambda work: work.of("a", int))
    way.stage("c", "b", does=lambda work: work.maybe("a", int))
    with pytest.raises(LookupError, match="the stage c does not say that it takes the product of a"):
        way.carry_out()


def test_a_gate_on_the_release_ends_the_way_but_for_what_is_always_done(walk: Callable[[], Walk], job: Job) -> None:
    for value, expected in ((0.05, ["overlap", "later", "build", "report"]), (0.5, ["overlap", "report"])):
        way = walk()
        way.stage("overlap", does=share(value), gated=True)
        way.stage("later", "overlap")
        way.stage("build", phase=Phase.BUILD)
        way.stage("report", "build", phase=Phase.JUDGE, always=True, tolerant=True)
        assert way.carry_out()[0] == "blocked"
        assert sorted(way.done) == sorted(expected)
    for variant in job.store.variants(job.run.id):
        assert variant.verdict is not None
        assert "overlap.share" in variant.verdict.reasons[0]
        assert variant.file is None


def test_stages_to_be_done_again_are_named_alone_or_by_their_family(job: Job) -> None:
    graph = way_of(job.recipe)
    assert named(graph, ["build Q4_0"]) == named(graph, ["build"]) == {"build Q4_0"}
    assert named(graph, []) == frozenset()
    with pytest.raises(ConfigurationError, match=r"The recipe has no stage 'biuld Q4_0'\. Did you mean build Q4_0\? `sluice stages --recipe RECIPE` lists"):
        named(graph, ["biuld Q4_0"])
