"""Tells a channel, or a program, how a run ended. What is sent stands in the message itself: nothing in it is followed, fetched or carried out here."""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import httpx

from config.errors import SluiceError
from config.notify import Ending, Notified
from config.passing import passes, wait_asked
from config.signing import SIGNATURE, TIMESTAMP, sign

SECONDS = 10.0  # for one delivery
LONGEST = 1900  # characters of a message: Discord takes 2000
NAMED = 8  # files or variants that a message names

_WORDS: Mapping[Ending, str] = {
    "published": "published",
    "blocked": "done, and gates kept something back",
    "failed": "failed",
    "held": "waits for a person",
    "superseded": "not published, because something newer is",
}


class NotDelivered(SluiceError):
    """A message did not arrive."""

    def __init__(self, message: str, *, passing: bool, after: float | None = None) -> None:
        super().__init__(message)
        self.passing = passing  # whether it may go better another time
        self.after = after  # seconds that the other side asks to wait


@dataclass(frozen=True, kw_only=True)
class Notice:
    """How a run ended."""

    ending: Ending
    run: int
    attempt: int
    repo: str
    sha: str
    recipe: str
    published: tuple[str, ...] = ()  # addresses
    blocked: Mapping[str, str]  # variants that are kept back, each with its first reason
    reason: str | None = None  # why it failed, is held or gave way

    def text(self) -> str:
        """The message for people, plain."""
        lines = [f"{self.repo} ({self.sha[:8]}): {_WORDS[self.ending]}. Run {self.run}, recipe {self.recipe}."]
        lines += [] if self.reason is None else [self.reason]
        lines += _some(list(self.published))
        lines += _some([f"{tag}: {reason}" for tag, reason in self.blocked.items()])
        text = "\n".join(lines)
        return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def body(form: str, notice: Notice) -> bytes:
    """What is sent in that form."""
    content: dict[str, Any]
    if form == "slack":
        escaped = notice.text().replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        content = {"text": escaped, "mrkdwn": False}
    elif form == "discord":
        content = {"content": notice.text(), "allowed_mentions": {"parse": []}}
    else:
        content = {**asdict(notice), "text": notice.text()}
    return json.dumps(content, ensure_ascii=False, sort_keys=True).encode()


def send(place: Notified, content: bytes) -> None:
    """Deliver it once. Raises NotDelivered, ConfigurationError; the address is in no message."""
    headers = {"Content-Type": "application/json", "User-Agent": "sluice"}
    if place.form == "json":
        now = int(time.time())
        headers[TIMESTAMP] = str(now)
        if (key := place.key()) is not None:
            headers[SIGNATURE] = sign(key, now, content)
    try:
        status, after = asyncio.run(_answered(place.address(), content, headers))
    except TimeoutError as error:
        raise NotDelivered(f"{place.name} gave no answer within {SECONDS:.0f} seconds.", passing=True) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise NotDelivered(f"{place.name} could not be reached: {type(error).__name__}.", passing=not isinstance(error, httpx.InvalidURL)) from error
    if not 200 <= status < 300:
        hint = "" if passes(status) else f" Look at {place.variable} and `form`."
        raise NotDelivered(f"{place.name} answered with status {status}.{hint}", passing=passes(status), after=after)


async def _answered(address: str, content: bytes, headers: Mapping[str, str]) -> tuple[int, float | None]:
    """The status of the answer and the seconds that it asks to wait. The limit is on all of it: a place that answers byte by byte holds up no other."""
    async with (
        asyncio.timeout(SECONDS),
        httpx.AsyncClient(timeout=SECONDS, follow_redirects=False) as client,
        client.stream("POST", address, content=content, headers=headers) as answer,
    ):
        return answer.status_code, wait_asked(answer.headers)


def _some(lines: list[str]) -> list[str]:
    return lines[:NAMED] + ([f"and {len(lines) - NAMED} more"] if len(lines) > NAMED else [])
