"""The end of the daemon: whatever waits for a Hub is broken off, and what is still there after that is ended by the kernel, wherever it hangs.

That is no loss: a run goes on where it was, and nothing is published half, wherever a process ends.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.hubclient import ending

LONGEST = 9  # seconds from the signal to the end


@contextmanager
def stopped_by_signals(interrupt: Callable[..., None]) -> Iterator[None]:
    """In the block, SIGTERM and SIGINT end the program: every call to a Hub is broken off, then `interrupt` is called, in the main thread."""

    def end(*_signal: object) -> None:
        ending.begin()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(LONGEST)  # the kernel's own: a thread of ours might hang like the rest
        interrupt()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
