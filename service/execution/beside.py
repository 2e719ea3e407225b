"""Several pieces of work at once, each in a thread: where one fails, or whoever had them begun leaves, all others leave at their next checkpoint."""

import queue
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from functools import partial
from threading import Event, Thread
from typing import Generic, Self, TypeVar

from service.execution.leaving import Left, checkpoint, left_also_by

EVERY = 0.2  # seconds between two questions whether all of it is still to be done
LONGEST = 10.0  # seconds that the end waits for work that does not come to a checkpoint; what that does later nobody hears of

K = TypeVar("K")
T = TypeVar("T")
R = TypeVar("R")


class Crew(Generic[K, R]):
    """Threads at work, each known by a key, which see the context in which they were begun; none of them is at work after the `with` block."""

    def __init__(self) -> None:
        self._over = Event()
        self._ended: queue.SimpleQueue[tuple[K, Future[R]]] = queue.SimpleQueue()
        self._threads: list[Thread] = []
        self.busy = 0  # pieces of work that were begun and are not told as ended

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        """Have all that is at work leave, and wait for it."""
        self._over.set()
        until = time.monotonic() + LONGEST
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def begin(self, key: K, work: Callable[[], R]) -> None:
        """Do the work in a thread."""
        context = copy_context()
        thread = Thread(target=context.run, args=(self._do, key, work), name=str(key), daemon=True)
        self._threads.append(thread)
        self.busy += 1
        thread.start()

    def next(self) -> tuple[K, R]:
        """What was made by the next work that ends. Raises its error, and what this context's work is left by."""
        while True:
            try:
                key, ended = self._ended.get(timeout=EVERY)
            except queue.Empty:
                checkpoint()
                continue
            self.busy -= 1
            return key, ended.result()

    def _do(self, key: K, work: Callable[[], R]) -> None:
        ended: Future[R] = Future()
        try:
            with left_also_by(self._asked):
                ended.set_result(work())
        except BaseException as error:  # noqa: BLE001  it is raised where the end is asked for
            ended.set_exception(error)
        self._ended.put((key, ended))

    def _asked(self, whole: bool) -> None:
        if self._over.is_set():
            raise Left("other work beside it ended all of it")


def side_by_side(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """What the work makes of each item, all at once. Raises the first error that occurs."""
    made: dict[int, R] = {}
    with Crew[int, R]() as hands:
        for number, item in enumerate(items):
            hands.begin(number, partial(work, item))
        while hands.busy:
            number, result = hands.next()
            made[number] = result
    return [made[number] for number in range(len(items))]
