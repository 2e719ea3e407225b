"""Wrong tokens: counted by the address that they come from, limited, and told to the audit trail.

A token that works is never refused for the wrong ones that came from the same address: nobody can lock others out, and 256 random bits cannot be guessed.
"""

import time
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

from service.store import Store

FAILURES = 10  # wrong tokens of an address that are answered in a window
WINDOW = 300.0  # seconds
ADDRESSES = 10_000  # remembered at once, the latest


@dataclass
class _Failures:
    began: float
    count: int = 0


class Attempts:
    """The failures of a service, in memory. For any number of threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._by_address: OrderedDict[str, _Failures] = OrderedDict()

    def failed(self, store: Store, address: str, path: str) -> int | None:
        """Count a wrong token; the seconds until another is answered when there were too many, None while there were not."""
        with self._lock:
            now = time.monotonic()
            found = self._by_address.pop(address, None)
            if found is None or now - found.began >= WINDOW:
                found = _Failures(began=now)
            self._by_address[address] = found
            while len(self._by_address) > ADDRESSES:
                self._by_address.popitem(last=False)
            found.count += 1
            count, wait = found.count, max(1, round(found.began + WINDOW - now))
        if count in {1, FAILURES + 1}:  # the trail only grows: a flood must not fill it
            store.audit("api", f"login/{address}", "refused" if count == 1 else "limited", {"path": path, "failures": count})
        return wait if count > FAILURES else None
