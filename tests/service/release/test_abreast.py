"""What is done at once and what is not, and how what is at work ends when something else fails, or when nobody wants the run any more."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from config.errors import MeasurementError
from service.execution.leaving import Left, checkpoint, left_by
from service.execution.place import Here
from service.execution.workbench import Event
from service.release import abreast
from service.release.graph import Phase
from service.release.job import Job
from service.release.work import Work
from service.store import LeaseLost
from tests.service.helpers import eventually
from tests.service.release.walk import Walk, fail

PATIENCE = 20.0  # seconds


@pytest.fixture
def walk(job: Job) -> Walk:
    job.place = Here(wide=True)
    return Walk(job, abreast.carry_out)


class Withdrawn(Left):
    """Somebody does not want it."""


@contextmanager
def withdrawn(when: Callable[[], bool], *, pause: bool = False) -> Iterator[None]:
    """The block's work is left when that holds; a pause only where what was begun is whole."""

    def asked(whole: bool) -> None:
        if when() and (whole or not pause):
            raise Withdrawn

    with left_by(asked):
        yield


def waits(until: threading.Event) -> Callable[[Work], object]:
    def does(work: Work) -> object:
        ended = time.monotonic() + PATIENCE
        while not until.is_set():
            checkpoint()
            assert time.monotonic() < ended, "nobody ended it"
            time.sleep(0.01)
        return "waited"

    return does


def test_what_takes_nothing_of_one_another_is_done_at_once(walk: Walk) -> None:
    together = threading.Barrier(3)
    for name in ("a", "b", "c"):
        walk.stage(name, does=lambda work: together.wait(PATIENCE))
    walk.stage("d", "a", "b", "c", does=lambda work: [work.of(name, int) for name in ("a", "b", "c")])
    _, work = walk.carry_out()
    assert sorted(work.of("d", list)) == [0, 1, 2]
    assert walk.threads["d"] is threading.main_thread(), "nothing could be done beside it"


def test_a_failure_has_the_others_leave_and_nothing_more_is_begun(walk: Walk) -> None:
    never = threading.Event()
    walk.stage("waits", does=waits(never))
    walk.stage("fails", does=fail)
    walk.stage("later", "waits")
    with pytest.raises(MeasurementError, match="it broke"):
        walk.carry_out()
    assert sorted(walk.done) == ["fails", "waits"]
    assert not walk.threads["waits"].is_alive()


def test_what_records_is_alone_and_what_comes_later_waits_for_it(walk: Walk) -> None:
    ended = []
    walk.stage("a", does=lambda work: time.sleep(0.2) or ended.append("a"))
    walk.stage("b", does=lambda work: ended.append("b"))
    walk.stage("approval", does=lambda work: ended.append("approval"), records=True)
    walk.stage("build", does=lambda work: ended.append("build"), phase=Phase.BUILD)
    walk.carry_out()
    assert set(ended[:2]) == {"a", "b"}
    assert ended[2:] == ["approval", "build"]
    assert walk.threads["approval"] is threading.main_thread()


def test_a_pause_lets_what_is_at_work_end_and_begins_nothing_more(walk: Walk) -> None:
    paused = threading.Event()
    walk.stage("pauses", does=lambda work: paused.set())
    walk.stage("ends", does=lambda work: paused.wait(PATIENCE) and time.sleep(0.3))
    walk.stage("later", "pauses", "ends")
    with withdrawn(paused.is_set, pause=True), pytest.raises(Withdrawn):
        walk.carry_out()
    assert sorted(walk.done) == ["ends", "pauses"]


def test_a_run_that_is_cancelled_leaves_all_that_is_at_work(walk: Walk) -> None:
    never = threading.Event()
    for name in ("a", "b"):
        walk.stage(name, does=waits(never))
    with withdrawn(lambda: len(walk.done) == 2), pytest.raises(Withdrawn):
        walk.carry_out()
    eventually(lambda: not any(thread.is_alive() for thread in walk.threads.values()))


def test_a_lease_that_one_stage_finds_lost_ends_the_others(walk: Walk) -> None:
    never = threading.Event()

    def lost(work: Work) -> object:
        raise LeaseLost

    walk.stage("waits", does=waits(never))
    walk.stage("finds", does=lost)
    with pytest.raises(LeaseLost):
        walk.carry_out()
    assert not walk.threads["waits"].is_alive()


def test_each_thread_s_steps_are_those_of_its_stage(walk: Walk) -> None:
    together = threading.Barrier(2)

    def names(work: Work) -> list[str]:
        together.wait(PATIENCE)
        steps = work.job.each(lambda step: f"{work.job.within} {step}", ["1", "2"])
        return [work.job.within, *steps]

    for name in ("a", "b"):
        walk.stage(name, does=names)
    _, work = walk.carry_out()
    assert work.products == {name: [name, f"{name} 1", f"{name} 2"] for name in ("a", "b")}


def test_who_watches_is_told_what_is_still_to_come_and_how_long_at_once(walk: Walk) -> None:
    events = list[Event]()
    walk.job.listener = events.append
    walk.job.estimates = {"a": 2.0, "b": 4.0}
    walk.stage("a")
    walk.stage("b", "a")
    walk.carry_out()
    expected = [(event.stage, event.estimate, dict(event.coming)) for event in events if event.state == "expected"]
    assert expected == [("a", 2.0, {"b": 4.0}), ("b", 4.0, {}), ("", None, {})]
