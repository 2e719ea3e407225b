"""Faults of the moment: which answers of a Hub are such, how long it asks to wait, and how long to wait where it does not say."""

import random
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

DAY = 86_400.0  # seconds; no pause is longer
CONFLICT, LOCKED = 409, 423
_AT_ANOTHER = re.compile(r"(?i)\bin progress\b|\btry again\b")  # "Another commit operation is in progress for this repository. Please try again later."
_REFUSED = re.compile(r'"\w+"\s*;\s*r\s*=\s*0\s*;\s*t\s*=\s*(\d+)')  # draft-ietf-httpapi-ratelimit-headers: nothing remains, and seconds until there is again
_TOLD = re.compile(r"HTTP status (?:client|server) error \((\d{3}) ")  # as Rust's reqwest words it


def passes(status: int) -> bool:
    """Whether an answer of this status may be another one for the same request later on."""
    return status in {408, LOCKED, 425, 429} or (500 <= status < 600 and status not in {501, 505})


def in_turn(status: int, said: str | None) -> bool:
    """Whether a Hub refuses a change, of which it carried out nothing, because it is at another one of the same repo; most conflicts are no such thing."""
    return status == LOCKED or (status == CONFLICT and said is not None and _AT_ANOTHER.search(said) is not None)


def xet_status(error: OSError) -> int | None:
    """The status of which an error of Xet's client speaks; None of what is no answer."""
    told = _TOLD.search(str(error))
    return 401 if isinstance(error, PermissionError) else None if told is None else int(told[1])


def xet_passes(error: OSError) -> bool | None:
    """Whether what Xet's client raises may go better later on, or with a new token; None of what is about a file of this machine.

    It raises ConnectionError for whatever becomes of a request, PermissionError where it has no token any more.
    """
    if not isinstance(error, (ConnectionError, TimeoutError)) and not (isinstance(error, PermissionError) and error.filename is None):
        return None
    status = xet_status(error)
    return status is None or status == 401 or passes(status)


def wait_asked(headers: Mapping[str, str]) -> float | None:
    """Seconds that an answer asks to wait, at most a day; None where it does not. `headers` know their names in any case."""
    after = (headers.get("retry-after") or "").strip()
    if after.isascii() and after.isdigit():
        return min(float(after), DAY)
    if after:
        try:
            at = parsedate_to_datetime(after)
        except (ValueError, OverflowError):
            return None
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return min(max(0.0, (at - datetime.now(UTC)).total_seconds()), DAY)
    refused = _REFUSED.search(headers.get("ratelimit") or "")
    return None if refused is None else min(float(refused[1]), DAY)


def pause(tries: int, *, first: float, longest: float = DAY, asked: float | None = None) -> float:
    """Seconds to wait after so many tries failed before: `first`, doubled each time up to `longest`, but no less than was `asked` for.

    Up to a half of it is left to chance, so that those that failed together do not come back together.
    """
    spread = random.uniform(0.5, 1.0)  # noqa: S311  nobody gains by guessing it
    asked = asked or 0.0
    return max(min(first * 2.0 ** min(tries, 40), longest) * spread, asked + (1.0 - spread) * min(asked, first))
