"""Wrong tokens, and wrong secrets and signatures of webhooks: counted by the address that they come from, limited, and told to the audit trail.

What is right is never refused for the wrong ones that came from the same address: nobody can lock others out, and 256 random bits cannot be guessed.
"""

import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_network
from threading import Lock

from service.store import Store

FAILURES = 10  # wrong ones of an address that are answered in a window
WINDOW = 300.0  # seconds
ADDRESSES = 10_000  # remembered at once, the latest
TOLD = 100  # addresses in a window that the audit trail tells of: it only grows, and a flood must not fill it


@dataclass
class _Failures:
    began: float
    count: int = 0


class Attempts:
    """The failures of a service, in memory. For any number of threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._by_address: OrderedDict[str, _Failures] = OrderedDict()
        self._told = _Failures(began=time.monotonic())

    def failed(self, store: Store, client: str, path: str) -> int | None:
        """Count a wrong one; the seconds until another is answered when there were too many, None while there were not."""
        address = _holder(client)
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
            tell = count in {1, FAILURES + 1} and self._may_be_told(now)
        if tell:
            store.audit("api", f"login/{client}", "refused" if count == 1 else "limited", {"path": path, "failures": count})
        return wait if count > FAILURES else None

    def _may_be_told(self, now: float) -> bool:
        if now - self._told.began >= WINDOW:
            self._told = _Failures(began=now)
        self._told.count += 1
        return self._told.count <= TOLD


def _holder(client: str) -> str:
    """Whom an address is taken for: of IPv6 everybody has 2^64 of them, and all are one."""
    with suppress(ValueError):
        if isinstance(network := ip_network(f"{client}/64", strict=False).network_address, IPv6Address):
            return str(network)
    return client
