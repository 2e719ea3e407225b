from datetime import UTC, datetime, timedelta

import pytest

from config.progress import Progress
from service.pace import Pace, Phase, heard, pace, run_left, stage_left

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def after(*reports: tuple[float, int], total: int | None = 40, unit: str = "windows") -> Phase | None:
    """The phase after reports of so much done at so many seconds."""
    phase = None
    for seconds, done in reports:
        phase = heard(phase, Progress(done=done, total=total, unit=unit), at(seconds))
    return phase


def test_nobody_knows_before_something_was_done() -> None:
    assert pace(None, at(5)) == Pace(rate=None, left=None)
    assert pace(after((1, 0)), at(5)) == Pace(rate=None, left=None)
    assert pace(after((1, 7)), at(5)) == Pace(rate=None, left=None), "seven were done before the phase began, as far as anybody was told"


def test_rate_and_time_left_rest_on_what_was_done_since_the_phase_began() -> None:
    phase = after((10, 20), (20, 25))
    assert pace(phase, at(20)) == Pace(rate=0.5, left=30.0)
    assert pace(phase, at(21)) == Pace(rate=0.5, left=29.0), "it counts down between two reports"
    assert pace(after((10, 20), (20, 25), total=None), at(20)) == Pace(rate=0.5, left=None)


def test_one_that_hangs_gets_slower_and_its_time_left_grows() -> None:
    phase = after((0, 0), (10, 10))
    found = [pace(phase, at(seconds)) for seconds in (10, 11, 12, 30, 300)]
    assert [item.rate for item in found] == pytest.approx([1, 1, 11 / 12, 11 / 30, 11 / 300])
    assert [item.left for item in found] == pytest.approx([30, 29, 29 * 12 / 11, 29 * 30 / 11, 29 * 300 / 11])


def test_the_last_one_is_never_said_to_end_at_once() -> None:
    phase = after((0, 0), (39, 39))
    assert pace(phase, at(39.5)).left == pytest.approx(0.5)
    assert pace(phase, at(60)).left is None
    assert pace(after((0, 0), (40, 40)), at(60)) == Pace(rate=1.0, left=0.0)


def test_the_same_report_again_is_no_progress() -> None:
    once, twice = after((0, 0), (10, 10)), after((0, 0), (10, 10), (30, 10))
    assert pace(twice, at(30)) == pace(once, at(30))


def test_another_unit_or_less_than_before_begins_a_new_phase() -> None:
    first = after((0, 0), (10, 40))
    assert pace(heard(first, Progress(done=2, total=40, unit="windows"), at(12)), at(12)) == Pace(rate=None, left=None)
    other = heard(first, Progress(done=50, total=90, unit="tensors"), at(12))
    assert pace(other, at(12)) == Pace(rate=None, left=None)
    assert pace(heard(other, Progress(done=60, total=90, unit="tensors"), at(14)), at(14)) == Pace(rate=5.0, left=6.0)


def test_a_clock_that_was_set_back_divides_by_nothing() -> None:
    assert pace(after((10, 0), (10, 5)), at(10)) == Pace(rate=None, left=None)
    assert pace(after((10, 0), (5, 5)), at(4)).rate is None


def test_a_stage_takes_what_it_was_estimated_but_no_less_than_its_phase() -> None:
    phase = after((0, 0), (10, 10))
    assert stage_left(10, None, None, at(10)) is None
    assert stage_left(10, 25, None, at(10)) == 15
    assert stage_left(99, 25, None, at(10)) == 0
    assert stage_left(10, None, phase, at(10)) == 30
    assert stage_left(10, 25, phase, at(10)) == 30
    assert stage_left(10, 100, phase, at(10)) == 90


def test_a_run_takes_what_its_stages_do_if_all_are_known() -> None:
    assert run_left([5.0], [10.0, 20.0]) == 35
    assert run_left([], [10.0]) == 10
    assert run_left([5.0], [10.0, None]) is None
    assert run_left([None], [10.0]) is None
    assert run_left([], []) is None
