from pathlib import Path

import pytest

from config.errors import UpstreamError
from config.settings import Settings
from service.execution.kept import StageStore
from service.execution.workbench import Event, Workbench, steps_of

FUNCTIONS = "tests.service.stage_functions"


@pytest.fixture
def told() -> list[Event]:
    return []


@pytest.fixture
def bench(tmp_path: Path, told: list[Event]) -> Workbench:
    settings = Settings(home=tmp_path / "home")
    return Workbench(settings=settings, stages=StageStore(settings.folder), listener=told.append)


def test_a_stage_is_done_once_and_found_again_without_a_database(bench: Workbench, told: list[Event], tmp_path: Path) -> None:
    (tmp_path / "text").write_text("ab")
    inputs = {"text": bench.data(tmp_path / "text")}
    first, again = (bench.apart("shout", f"{FUNCTIONS}:shout", inputs, threaded=False, times=2) for _ in range(2))
    assert first == again
    assert first.file().path.read_text() == "ABAB"
    assert [(event.stage, event.state) for event in told] == [("shout", "started"), ("shout", "done"), ("shout", "started"), ("shout", "reused")]
    other = bench.apart("shout", f"{FUNCTIONS}:shout", inputs, threaded=False, times=3)
    assert other.key != first.key
    assert not list((tmp_path / "home").glob("*.db"))


def test_what_spares_a_stage_work_is_given_to_it_and_decides_nothing(bench: Workbench, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("ab")
    inputs = {"text": bench.data(tmp_path / "text")}
    first = bench.apart("echo", f"{FUNCTIONS}:echo", inputs, threaded=False, helps={"known": [bench.data(tmp_path / "text")]})
    assert first.result == {"known": 1}
    assert bench.apart("echo", f"{FUNCTIONS}:echo", inputs, threaded=False) == first


def test_a_stage_that_fails_is_told_and_leaves_nothing(bench: Workbench, told: list[Event]) -> None:
    with pytest.raises(UpstreamError, match="use another"):
        bench.apart("refuse", f"{FUNCTIONS}:refuse", {}, threaded=False)
    assert (told[-1].state, told[-1].message) == ("failed", "the model is broken; use another")
    assert not list(bench.stages.finished.iterdir())
    assert not list(bench.stages.working.iterdir())


def test_what_a_stage_remarks_on_is_told_each_time(bench: Workbench, told: list[Event]) -> None:
    for _ in range(2):
        bench.apart("remark", f"{FUNCTIONS}:remark", {}, threaded=False)
    assert [(event.state, event.message) for event in told if event.state != "started"] == [(state, "done in another way") for state in ("done", "reused")]


@pytest.mark.parametrize(("redo", "within"), [("shout", "anything"), ("a stage", "a stage")])
def test_a_stage_that_is_to_be_redone_is_done_once_more_and_no_more(bench: Workbench, told: list[Event], tmp_path: Path, redo: str, within: str) -> None:
    (tmp_path / "text").write_text("ab")
    inputs = {"text": bench.data(tmp_path / "text")}
    with steps_of(within):
        first = bench.apart("shout", f"{FUNCTIONS}:shout", inputs, threaded=False, times=2)
        bench.redo = {redo}
        again, found = (bench.apart("shout", f"{FUNCTIONS}:shout", inputs, threaded=False, times=2) for _ in range(2))
    assert [event.state for event in told] == ["started", "done", "started", "done", "started", "reused"]
    assert (again.key, again.files) == (first.key, first.files) == (found.key, found.files)
