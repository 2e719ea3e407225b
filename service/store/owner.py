"""Names the process that holds a lease, and tells whether that process is gone, so that a restart need not wait for the lease to run out."""

import os
import socket
from datetime import UTC, datetime
from pathlib import Path

import psutil


def worker_name() -> str:
    """A name of this process that no other process has or will have: host, process-id namespace, process id, start time."""
    return f"{_here()}/{os.getpid()}/{psutil.Process().create_time():.2f}"


def is_gone(worker: str) -> bool:
    """True when `worker` names a process of this host that has ended; False for one that lives, and for every other name."""
    place, _, process = worker.rpartition("/")[0].rpartition("/")
    started = worker.rpartition("/")[2]
    if place != _here() or not process.isdigit():
        return False
    try:
        found = psutil.Process(int(process))
        return found.status() == psutil.STATUS_ZOMBIE or f"{found.create_time():.2f}" != started
    except psutil.NoSuchProcess:
        return True


def is_held(worker: str | None, until: datetime | None) -> bool:
    """Whether somebody carries out what `worker` leased until then."""
    return worker is not None and until is not None and until > datetime.now(UTC) and not is_gone(worker)


def _here() -> str:
    """Host and process-id namespace: two containers may share a host name, and their process ids mean different processes."""
    try:
        namespace = Path("/proc/self/ns/pid").readlink().name
    except OSError:
        namespace = "-"
    return f"{socket.gethostname()}/{namespace}"
