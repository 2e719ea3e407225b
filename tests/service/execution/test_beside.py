"""Work in threads: in order, with this context, and ended together."""

import threading
import time
from pathlib import Path

import pytest

from config.errors import MeasurementError
from service.execution.beside import side_by_side
from service.execution.leaving import Left, checkpoint, left_by
from service.execution.pins import Pins, closed_gate


def test_results_come_in_the_order_of_the_items_whichever_is_done_first() -> None:
    def slow(number: int) -> int:
        time.sleep(0.02 * (5 - number))
        return number * number

    assert side_by_side(slow, range(5)) == [0, 1, 4, 9, 16]


def test_the_first_error_ends_the_others_and_is_raised() -> None:
    left = []

    def work(number: int) -> None:
        if number == 2:
            raise MeasurementError("it broke")
        try:
            while True:
                checkpoint()
                time.sleep(0.01)
        except Left:
            left.append(number)
            raise

    with pytest.raises(MeasurementError, match="it broke"):
        side_by_side(work, range(4))
    assert sorted(left) == [0, 1, 3]


def test_who_had_it_begun_is_asked_in_the_threads_as_well() -> None:
    asked_in = set()

    def asked(whole: bool) -> None:
        asked_in.add(threading.current_thread().name)

    with left_by(asked):
        side_by_side(lambda number: checkpoint(), range(3))
    assert {"0", "1", "2"} <= asked_in


def test_outputs_are_pinned_by_any_number_of_threads(tmp_path: Path) -> None:
    pins, together = Pins(tmp_path), threading.Barrier(8)

    def add(number: int) -> None:
        together.wait(20)
        pins.add(f"key-{number}")

    side_by_side(add, range(8))
    with closed_gate(tmp_path) as used:
        assert used == {f"key-{number}" for number in range(8)}
    pins.close()
