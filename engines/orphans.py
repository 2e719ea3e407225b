"""Keeps the programs that we start from living on without us, however we end: the kernel kills them, so that it holds for SIGKILL too.

Covers: the program itself, from before it is executed. Does not cover: what that program starts in turn, which has to ask for itself.
The kernel takes the thread that started a program for its parent, so a thread must not end before the programs that it started.
"""

import ctypes
import os
import signal
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1  # prctl(2)

_libc = ctypes.CDLL(None, use_errno=True)  # loaded here: what runs between fork and exec must take no lock


def prevented() -> Callable[[], None]:
    """What to give to `subprocess.Popen` as `preexec_fn`, so that the new process is killed when the calling thread ends, even before it could ask for that."""
    parent = os.getpid()

    def ask() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it ended before the kernel was asked, and no signal will come
            os.kill(os.getpid(), signal.SIGKILL)

    return ask
