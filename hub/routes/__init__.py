"""The Hub's addresses, by concern; each module has a table `ROUTES` of method, address and function."""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from hub.call import Call


class Address(NamedTuple):
    """A method and an address pattern, and the function that answers.

    A plain function runs in a thread, with the JSON body read; its result is sent as JSON unless it is a response.
    An async one runs in the event loop and reads the body itself, as it streams.
    """

    method: str
    pattern: str
    answer: Callable[[Call], Any] | Callable[[Call], Awaitable[Any]]


REPO = "/api/{kind:kind}/{ns}/{name}"
