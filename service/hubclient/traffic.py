"""What this process asked of Hubs, how they answered, what time it is there, and how many bytes went to and fro. Xet's own client tells nothing of that."""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from threading import Lock

UNREACHED = "none"  # the status of a request that had no answer


class Traffic:
    """Counts that only grow. For any number of threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._calls: Counter[tuple[str, ...]] = Counter()
        self._bytes: Counter[str] = Counter()
        self.ahead = 0.0  # seconds that this machine's clock is ahead of that of the Hub which answered last; 0 while none has

    def called(self, method: str, status: str) -> None:
        """A request had an answer of that status, or `UNREACHED`; each try is one."""
        with self._lock:
            self._calls[method, status] += 1

    def dated(self, headers: Mapping[str, str]) -> None:
        """An answer says when it was made (`date`), and for how long something between has kept it (`age`); `headers` know their names in any case."""
        try:
            at = parsedate_to_datetime(headers.get("date") or "")
            kept = float(headers.get("age") or 0)
        except (ValueError, OverflowError):
            return
        self.ahead = (datetime.now(UTC) - (at if at.tzinfo else at.replace(tzinfo=UTC))).total_seconds() - kept

    def moved(self, direction: str, count: int) -> None:
        """So many bytes were `sent` or `received`, heads and all."""
        with self._lock:
            self._bytes[direction] += count

    def calls(self) -> dict[tuple[str, ...], int]:
        """Requests by method and status."""
        with self._lock:
            return dict(self._calls)

    def bytes(self) -> dict[str, int]:
        """Bytes by direction."""
        with self._lock:
            return dict(self._bytes)


traffic = Traffic()
"""Of this process."""
