"""Work in a thread of its own, where what it calls knows no deadline: whoever asked for it may stop waiting, and the program may end without it."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def begun(work: Callable[[], T], name: str) -> "Future[T]":
    """What the work comes to, in time; it goes on in a thread of that name, for which Python does not wait at its end."""
    done: Future[T] = Future()

    def carry_out() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001  whoever waits raises it
            done.set_exception(error)

    threading.Thread(target=carry_out, name=name, daemon=True).start()
    return done
