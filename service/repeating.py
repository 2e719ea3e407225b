"""Work that is repeated in a thread while a block runs."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeated(work: Callable[[], bool], *, seconds: float, name: str) -> Iterator[None]:
    """Call `work` in a thread of that name, each time after so many seconds, until the block ends or `work` says by False that it is done."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(seconds) and work():
            pass

    thread = threading.Thread(target=repeat, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
