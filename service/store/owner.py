"""Names the process that holds a lease, and tells whether that process is gone, so that a restart need not wait for the lease to run out."""

import os
import socket
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import psutil

_PROC = Path("/proc")


def worker_name() -> str:
    """A name of this process that no other process has or will have: host, boot, process-id namespace, process id, start time."""
    return f"{_here()}/{os.getpid()}/{_began(os.getpid())}"


def is_gone(worker: str) -> bool:
    """True when `worker` names a process of this host that has ended; False for one that lives, and for every other name."""
    place, _, process = worker.rpartition("/")[0].rpartition("/")
    started = worker.rpartition("/")[2]
    if place != _here() or not process.isdecimal():
        return False
    try:
        return psutil.Process(int(process)).status() == psutil.STATUS_ZOMBIE or _began(int(process)) != started
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return True


def is_held(worker: str | None, until: datetime | None) -> bool:
    """Whether somebody carries out what `worker` leased until then."""
    return worker is not None and until is not None and until > datetime.now(UTC) and not is_gone(worker)


def _began(process: int) -> str:
    """When a process was started, in clock ticks since the boot: the time of day, as psutil tells it, is another one whenever somebody sets the clock."""
    if not _PROC.is_dir():
        return f"{psutil.Process(process).create_time():.2f}"
    return (_PROC / str(process) / "stat").read_text(errors="replace").rpartition(")")[2].split()[19]  # the 22nd field; the second, a name, may hold blanks


@cache
def _here() -> str:
    """Host, boot and process-id namespace: two machines, or containers, may share a name, and their process ids mean different processes."""
    boot, namespace = _PROC / "sys/kernel/random/boot_id", _PROC / "self/ns/pid"
    try:
        return f"{socket.gethostname()}/{boot.read_text().strip()[:8]}/{namespace.readlink().name}"
    except OSError:
        return f"{socket.gethostname()}/-/-"
