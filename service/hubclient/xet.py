"""Xet's client held to the limits of our lines, which its own connections know nothing of: what it does is watched by the bytes that it says have moved.

It works in a thread of its own, for it returns to Python only when all is sent or fetched, while signals, stage limits and people wait for nobody.
Covers: silence and rate, what is left of a stage's time, the end of the program, progress within a file.
Does not cover: a limit of bytes a second, which it cannot keep (`connect` goes by LFS then), `traffic`, and its own tries again.
"""

import time
from collections.abc import Callable
from concurrent.futures import wait
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from huggingface_hub.utils import _xet

from config.aside import begun
from config.errors import HubUnavailable
from config.progress import Tally
from service.hubclient.allowance import allowance
from service.hubclient.lines import Limits, ending

LOOK = 0.2  # seconds between two looks
SETTLING = 600.0  # seconds that may pass without a word once every byte is sent: the server goes over it all then

T = TypeVar("T")


class Sessions(_xet.XetSessionHolder):
    """Gives the Hub's client sessions whose transfers are watched."""

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self.limits = limits

    def get(self) -> "Session":
        """The session of this process."""
        return Session(super().get(), self.limits)  # type: ignore[no-untyped-call]


class Session:
    """What the Hub's client asks of one."""

    def __init__(self, session: Any, limits: Limits) -> None:
        self._session = session
        self._limits = limits

    def new_upload_commit(self, **options: Any) -> "Transfer":
        """Files to be sent; whoever listens hears how far that is."""
        return Transfer(self._session.new_upload_commit, options, self._limits, tally=Tally(None, "bytes"))

    def new_file_download_group(self, **options: Any) -> "Transfer":
        """Files to be fetched, of which the client's own bars tell."""
        return Transfer(self._session.new_file_download_group, options, self._limits)


class Transfer:
    """Files on their way."""

    def __init__(self, begin: Callable[..., Any], options: dict[str, Any], limits: Limits, tally: Tally | None = None) -> None:
        self._limits, self._tally = limits, tally
        self._told: Callable[..., None] | None = options.pop("progress_callback", None)
        self._report: Any = None  # the last of Xet's
        self._purse = limits.silence  # seconds
        self._seen = _counts(None)
        self._looked = time.monotonic()
        self._inner: Any = None
        self._inner = self._watched(partial(begin, progress_callback=self._hear, **options))

    def __enter__(self) -> "Transfer":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._abort()
            return
        self._watched(self._inner.wait_to_finish)
        self._settle()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)  # what begins with the files, and the like

    def _hear(self, report: Any, items: Any) -> None:
        self._report = report
        if self._told is not None:
            self._told(report, items)

    def _watched(self, work: Callable[[], T]) -> T:
        """What the work comes to. Raises what it raises, HubUnavailable when too little moves or the program ends, and what the allowance has to raise."""
        self._looked = time.monotonic()
        done = begun(work, "xet")
        try:
            while not wait([done], LOOK).done:
                self._settle()
                self._check()
            return done.result()
        except BaseException:
            if not done.done():
                self._abort()
            raise

    def _settle(self) -> None:
        """Take the time since the last look from the purse, put back what the bytes that moved may take, and tell of them."""
        now = time.monotonic()
        seconds, self._looked = now - self._looked, now
        seen = _counts(self._report)
        moved = max(seen[0] - self._seen[0], seen[1] - self._seen[1])
        longest = self._limits.silence
        if self._report is not None and self._report.total_bytes and self._report.total_bytes == self._report.total_bytes_completed:
            longest = max(longest, SETTLING)
        if seen[2:] != self._seen[2:] or (longest > self._limits.silence and moved):  # the server is at it
            self._purse = longest
        self._purse = min(longest, self._purse - seconds + moved / self._limits.rate)
        if self._tally is not None and seen != self._seen:
            self._tally.add(seen[0] - self._seen[0])
        self._seen = seen

    def _check(self) -> None:
        if ending.begun:
            raise HubUnavailable("Xet is asked no more: the program ends.")
        allowance().check()
        if self._purse <= 0:
            raise HubUnavailable(
                f"Xet moved nothing for {self._limits.silence:,.0f} seconds, or less than {self._limits.rate:,.0f} bytes a second. "
                "If it stays so, check the network, or leave `hub_xet` out of the settings."
            )

    def _abort(self) -> None:
        """Have Xet leave off, and forget its connections where none is made yet."""
        with suppress(Exception):
            if self._inner is None:
                _xet.abort_xet_session()  # type: ignore[no-untyped-call]
            else:
                self._inner.abort()


def watch(limits: Limits) -> None:
    """Have the Hub's client transfer by Xet within these limits; transfers that are under way keep theirs."""
    present = _xet._GLOBAL_XET_HOLDER
    if not isinstance(present, Sessions) or present.limits != limits:
        _xet._GLOBAL_XET_HOLDER = Sessions(limits)


def _counts(report: Any) -> tuple[int, ...]:
    """What can be seen to move: bytes that are done, bytes that went over the network, and what the server has gone over, or 0."""
    if report is None:
        return (0, 0, 0)
    shard = report.shard
    gone_over = shard.total_shard_bytes_upload_completed + shard.total_shard_validation_entries_completed + shard.total_shards_completed if shard else 0
    return (report.total_bytes_completed, report.total_transfer_bytes_completed, gone_over)
