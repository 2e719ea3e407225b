from concurrent.futures import ThreadPoolExecutor

import pytest

from config.progress import Progress, Tally, counted, heard_by, report, within
from tests.heard import hearing


def told(found: list[Progress]) -> list[tuple[int, int | None, str]]:
    return [(item.done, item.total, item.unit) for item in found]


def test_without_a_listener_nothing_happens() -> None:
    report(1, 2, "windows")
    with within(1, 2, "windows"):
        assert list(counted("ab", "letters")) == ["a", "b"]
    Tally(2, "bytes").add(2)


def test_counting_tells_each_item_when_the_next_is_asked_for() -> None:
    with hearing() as found:
        items = counted("ab", "letters")
        assert found == []
        next(items)
        assert told(found) == [(0, 2, "letters")]
        next(items)
        assert told(found) == [(0, 2, "letters"), (1, 2, "letters")]
        assert list(items) == []
        assert told(found)[-1] == (2, 2, "letters")


def test_what_has_no_length_is_counted_up_to_what_is_said_or_to_nobody_knows() -> None:
    with hearing() as found:
        list(counted(iter("ab"), "letters"))
        list(counted(iter("ab"), "letters", total=3))
    assert [item.total for item in found] == [None] * 3 + [3] * 3


def test_parts_count_towards_the_whole_in_its_unit() -> None:
    with hearing() as found:
        for turn in range(2):
            with within(2 * turn, 4, "windows"):
                list(counted("ab", "letters"))
    assert told(found) == [(done, 4, "windows") for done in (0, 1, 2, 2, 3, 4)]


def test_a_listener_hears_nothing_after_its_block_be_it_left_by_an_error() -> None:
    found: list[Progress] = []

    def stumble() -> None:
        with heard_by(found.append):
            report(1, 1, "windows")
            raise KeyError

    with pytest.raises(KeyError):
        stumble()
    report(2, 2, "windows")
    assert told(found) == [(1, 1, "windows")]


def test_a_tally_counts_in_every_thread_and_back() -> None:
    with hearing() as found, ThreadPoolExecutor(4) as pool:
        tally = Tally(100, "bytes")
        list(pool.map(lambda _: tally.add(1), range(99)))
        tally.add(-9)
        tally.add(10)
    assert [item.done for item in found] == [*range(100), 90, 100]
    assert {(item.total, item.unit) for item in found} == {(100, "bytes")}
