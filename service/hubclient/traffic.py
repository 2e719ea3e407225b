"""What this process asked of Hubs, how they answered, and how many bytes went to and fro. Xet's own client tells nothing of what it does."""

from collections import Counter
from threading import Lock

UNREACHED = "none"  # the status of a request that had no answer


class Traffic:
    """Counts that only grow. For any number of threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._calls: Counter[tuple[str, ...]] = Counter()
        self._bytes: Counter[str] = Counter()

    def called(self, method: str, status: str) -> None:
        """A request had an answer of that status, or `UNREACHED`; each try is one."""
        with self._lock:
            self._calls[method, status] += 1

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
