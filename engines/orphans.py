"""Keeps the programs that we start from living on without us, however we end: the kernel kills them, so that it holds for SIGKILL too.

Covers: the program itself, from before it is executed. Does not cover: what that program starts in turn, which has to ask for itself, and what cannot hear
that we ended because it was stopped. All of these carry a mark in their environment, by which whoever is started next finds and ends them.
The kernel takes the thread that started a program for its parent, so a thread must not end before the programs that it started.
"""

import ctypes
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MARK = "SLUICE_STARTED_BY"  # the variable: namespace of process numbers, number, and start time in ticks since the machine started, of who started it all

_PR_SET_PDEATHSIG = 1  # prctl(2)
_START = 19  # of the fields in /proc/PID/stat that follow the program's name

_libc = ctypes.CDLL(None, use_errno=True)  # loaded here: what runs between fork and exec must take no lock


def prevented() -> Callable[[], None]:
    """What to give to `subprocess.Popen` as `preexec_fn`, so that the new process is killed when the calling thread ends, even before it could ask for that."""
    parent = os.getpid()

    def ask() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it ended before the kernel was asked, and no signal will come
            os.kill(os.getpid(), signal.SIGKILL)

    return ask


def released() -> None:
    """Undo what `prevented` asked for, in the process itself, which has another way to hear that we ended."""
    _libc.prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0)


def marked() -> dict[str, str]:
    """The variable that goes into the environment of whatever is started here: the mark of this process, or of the one that it is itself at work for."""
    return {MARK: os.environ.get(MARK) or f"{_namespace()}:{os.getpid()}:{_started(os.getpid())}"}


def sweep() -> list[str]:
    """Kill the programs of this account that were started for a process of ours which has ended; what they are called.

    Those that somebody living has started are left alone, and so are those of other containers, whose processes are not to be seen from here by their numbers.
    """
    killed = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with suppress(OSError), _held(int(entry.name)) as handle:  # it is gone, or somebody else's
                if _orphaned(entry):
                    name = (entry / "comm").read_text(encoding="utf-8", errors="replace").strip()
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    killed.append(name)
    return killed


@contextmanager
def _held(pid: int) -> Iterator[int]:
    """A handle of a process, which no other one takes the place of. Raises OSError when there is none."""
    handle = os.pidfd_open(pid)
    try:
        yield handle
    finally:
        os.close(handle)


def _orphaned(entry: Path) -> bool:
    """Whether a process was started for one of ours that has ended. Raises OSError when it cannot be looked at."""
    if entry.stat().st_uid != os.getuid():
        return False
    variables = (entry / "environ").read_bytes().split(b"\0")
    mark = next((value.decode() for name, _, value in (item.partition(b"=") for item in variables) if name == MARK.encode()), None)
    if mark is None:
        return False
    namespace, pid, started = mark.split(":")
    return namespace == str(_namespace()) and _started(int(pid)) != started


def _namespace() -> int:
    return Path("/proc/self/ns/pid").stat().st_ino


def _started(pid: int) -> str:
    """When a process was started, in ticks since the machine was; empty when there is none, or it only waits to be buried."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in {"Z", "X"} else fields[_START]
