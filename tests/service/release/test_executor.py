"""What the executor does with a graph: which failures end the way, which cost only what takes them, and what a gate on the release ends."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from config.errors import ConfigurationError, MeasurementError, SluiceError
from config.settings import Settings
from config.words import Measurement
from config.written import load_recipe
from service.execution.kept import Output, StageStore
from service.release.executor import carry_out
from service.release.graph import Phase, Stage, graph_of
from service.release.job import Job
from service.release.lifecycle import named
from service.release.way import way
from service.release.work import Work
from service.store import Store
from tests.service.conftest import RECIPE
from tests.service.helpers import at_work, queue_run


@pytest.fixture
def job(file_store: Store, tmp_path: Path) -> Job:
    path = tmp_path / "recipe.yaml"
    gate = "gates: [{name: overlap, measure: overlap.share, at_most: 0.1, scope: release}, {name: close, measure: kld.mean, at_most: 0.1}]"
    path.write_text(RECIPE.replace("gates: [{name: close, measure: kld.mean, at_most: 0.1}]", gate), encoding="utf-8")
    (tmp_path / "text.txt").write_text("Some text.\n", encoding="utf-8")
    settings = Settings(home=tmp_path / "home")
    return Job(store=file_store, run=queue_run(file_store), recipe=load_recipe(str(path)), settings=settings, stages=StageStore(settings.folder))


class Walk:
    """A graph of which it is noted what was done."""

    def __init__(self, job: Job) -> None:
        self.job, self.done, self.stages = job, [], []  # type: tuple[Job, list[str], list[Stage]]

    def stage(self, name: str, *also: str, does: Callable[[Work], object] = lambda work: None, phase: Phase = Phase.EXAMINE, **flags: Any) -> None:
        def work(at: Work) -> object:
            self.done.append(name)
            return does(at)

        self.stages.append(Stage(name=name, phase=phase, does=name, work=work, also=also, **flags))

    def carry_out(self) -> tuple[str, Work]:
        work = at_work(self.job, {})
        work.graph = graph_of(self.stages)
        return carry_out(work), work


def fail(work: Work) -> None:
    raise MeasurementError("it broke")


def share(value: float) -> Callable[[Work], Output]:
    measured = [asdict(Measurement(name="overlap.share", value=value, unit="share"))]
    return lambda work: Output(key="k", folder=Path("nowhere"), result={"measurements": measured}, files=(), seconds=0)


def test_a_failure_that_is_the_run_s_ends_it(job: Job) -> None:
    walk = Walk(job)
    walk.stage("a", does=fail)
    walk.stage("b")
    with pytest.raises(MeasurementError, match="it broke"):
        walk.carry_out()
    assert walk.done == ["a"]


def test_a_failure_alone_costs_what_takes_it_and_nothing_else(job: Job) -> None:
    walk = Walk(job)
    walk.stage("a", does=fail, alone=True)
    walk.stage("takes", "a")
    walk.stage("further", "takes")
    walk.stage("beside", does=lambda work: 7)
    walk.stage("together", "further", "beside", does=lambda work: work.maybe("beside", int), tolerant=True)
    ended, work = walk.carry_out()
    assert ended == "blocked", "nothing was judged"
    assert walk.done == ["a", "beside", "together"]
    assert work.of("together", int) == 7
    assert work.failed.keys() == {"a", "takes", "further"}
    with pytest.raises(SluiceError, match="it broke"):
        work.output("further")
    with pytest.raises(TypeError, match="the product of beside is a int, not a str"):
        work.of("beside", str)


def test_a_stage_sees_what_it_takes_and_nothing_else(job: Job) -> None:
    walk = Walk(job)
    walk.stage("a", does=lambda work: 7)
    walk.stage("b", "a", does=lambda work: work.of("a", int))
    walk.stage("c", "b", does=lambda work: work.maybe("a", int))
    with pytest.raises(LookupError, match="the stage c does not say that it takes the product of a"):
        walk.carry_out()


def test_a_gate_on_the_release_ends_the_way_but_for_what_is_always_done(job: Job) -> None:
    for value, expected in ((0.05, ["overlap", "later", "build", "report"]), (0.5, ["overlap", "report"])):
        walk = Walk(job)
        walk.stage("overlap", does=share(value), gated=True)
        walk.stage("later", "overlap")
        walk.stage("build", phase=Phase.BUILD)
        walk.stage("report", "build", phase=Phase.JUDGE, always=True, tolerant=True)
        assert walk.carry_out()[0] == "blocked"
        assert walk.done == expected
    for variant in job.store.variants(job.run.id):
        assert variant.verdict is not None
        assert "overlap.share" in variant.verdict.reasons[0]
        assert variant.file is None


def test_stages_to_be_done_again_are_named_alone_or_by_their_family(job: Job) -> None:
    graph = way(job.recipe)
    assert named(graph, ["build Q4_0"]) == named(graph, ["build"]) == {"build Q4_0"}
    assert named(graph, []) == frozenset()
    with pytest.raises(ConfigurationError, match=r"The recipe has no stage 'biuld Q4_0'\. Did you mean build Q4_0\? `sluice stages --recipe RECIPE` lists"):
        named(graph, ["biuld Q4_0"])
