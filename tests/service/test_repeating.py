"""Work in a thread: again and again, and no longer than it should."""

import threading
import time

from service.repeating import repeated


def test_work_is_repeated_until_the_block_ends() -> None:
    thrice, calls = threading.Event(), []

    def work() -> bool:
        calls.append(threading.current_thread().name)
        if len(calls) == 3:
            thrice.set()
        return True

    with repeated(work, seconds=0.01, name="busy"):
        assert thrice.wait(10)
    count = len(calls)
    time.sleep(0.05)
    assert len(calls) == count
    assert set(calls) == {"busy"}


def test_work_that_is_done_is_not_repeated() -> None:
    calls: list[int] = []

    def work() -> bool:
        calls.append(1)
        return False

    with repeated(work, seconds=0.01, name="done"):
        time.sleep(0.2)
    assert calls == [1]
