"""Requests that ask the Hub while their caller waits: few at a time and not for long, so that they never take the API away from all others."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from threading import BoundedSemaphore

from config.errors import HubUnavailable
from service.api.errors import ApiError
from service.hubclient import within

AT_ONCE = 8  # requests; the API has 40 threads
SECONDS = 60.0  # that one may wait for the Hub

_free = BoundedSemaphore(AT_ONCE)


@contextmanager
def asking_the_hub() -> Iterator[None]:
    """Around what asks the Hub. Raises ApiError when too many do already, HubUnavailable when it takes too long."""
    if not _free.acquire(blocking=False):
        message = f"{AT_ONCE} requests wait for the Hub already. Try again in a while."
        raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, "busy", message, {"Retry-After": "10"})
    try:
        with within(SECONDS, lambda: HubUnavailable(f"The Hub took longer than {SECONDS:.0f} seconds. Try again in a while.")):
            yield
    finally:
        _free.release()
