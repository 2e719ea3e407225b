"""Starts stages: one process has imported the large libraries and forks for each stage, which so begins at once and shares their memory.

Importing torch and transformers takes longer than most stages' work, and a release has a hundred stages. The program (`python -m service.execution.forkserver`)
never computes, so that it never has a thread that a fork would lose; it knows no token, and each stage leaves the network as soon as it is one.

It is asked on a socket on its standard input: one message a stage, with what the stage needs to begin, and the stage's request, log and line as file
descriptors. On the line it answers `STARTED`, and the exit status once the stage and all that it started are gone; when the line's other end is closed or
the service is dead, it ends the stage. It ends itself after a while without any.
"""

import gc
import importlib
import json
import os
import selectors
import signal
import socket
import struct
import sys
import tempfile
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from engines import orphans
from service.execution import child

PRELOADED = "engines.hf"  # torch, transformers and what most stages import of them; nothing of it starts a computing thread
IDLE = 120  # seconds without a stage after which the program ends, and its memory is free

STARTED = b"+"
STATUS = struct.Struct("=i")  # as waitstatus_to_exitcode has it
_MESSAGE = 1 << 16  # bytes of the largest message


class Closing(Protocol):
    """What can be closed."""

    def close(self) -> None:
        """Close it."""


@dataclass(frozen=True)
class _Forked:
    """A stage as the program knows it."""

    pid: int
    handle: int  # pidfd, readable once it has ended
    line: socket.socket

    def close(self) -> None:
        """Forget it."""
        os.close(self.handle)
        self.line.close()

    def kill(self) -> None:
        """Kill it and its group; also before it has made a group of its own."""
        for kill in (os.killpg, os.kill):
            with suppress(ProcessLookupError, PermissionError):
                kill(self.pid, signal.SIGKILL)


def serve(control: socket.socket) -> None:
    """Start stages until the other end of `control` is closed, or until none was asked for in a while."""
    stages: dict[int, _Forked] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        try:
            while ready := selector.select(None if stages else IDLE):
                for key, _ in ready:
                    if key.fileobj is not control:
                        forked, ended = key.data
                        _end(forked, ended, stages, selector)
                    elif not _begin(control, stages, selector):
                        return
        finally:
            for forked in stages.values():
                forked.kill()


def _begin(control: socket.socket, stages: dict[int, _Forked], selector: selectors.BaseSelector) -> bool:
    """Start the stage that is asked for; False when nobody will ask for one any more."""
    message, files, _, _ = socket.recv_fds(control, _MESSAGE, 3)
    if not message:
        return False
    if new := _forked(json.loads(message), *files, inherited=[selector, control, *stages.values()]):
        stages[new.pid] = new
        selector.register(new.handle, selectors.EVENT_READ, (new, True))
        selector.register(new.line, selectors.EVENT_READ, (new, False))
    return True


def _end(forked: _Forked, ended: bool, stages: dict[int, _Forked], selector: selectors.BaseSelector) -> None:
    """See a stage off that has `ended`, or end one whose line was closed."""
    if stages.get(forked.pid) is not forked:
        return  # its end and that of its line were told at once
    forked.kill()  # it, or what it left running
    if not ended:
        selector.unregister(forked.line)
        return
    selector.unregister(forked.handle)
    with suppress(KeyError):
        selector.unregister(forked.line)
    _reap(forked)
    del stages[forked.pid]


def _reap(forked: _Forked) -> None:
    _, status = os.waitpid(forked.pid, 0)
    with suppress(OSError):  # nobody waits for it any more
        forked.line.sendall(STATUS.pack(os.waitstatus_to_exitcode(status)))
    forked.close()


def _forked(message: dict[str, Any], request: int, log: int, line: int, *, inherited: Sequence[Closing]) -> _Forked | None:
    """A new stage, or None where the machine has no room for a process, which the line is told."""
    watched = orphans.prevented()
    answering = socket.socket(fileno=line)
    try:
        pid = os.fork()
    except OSError as error:
        with suppress(OSError):
            answering.sendall(str(error).encode())
        answering.close()
        return None
    else:
        if pid == 0:
            watched()
            for other in (answering, *inherited):  # a stage must not keep a line open, its own or another one's
                other.close()
            _become(message, request, log)
        answering.sendall(STARTED)
        return _Forked(pid=pid, handle=os.pidfd_open(pid), line=answering)
    finally:
        os.close(request)
        os.close(log)


def _become(message: dict[str, Any], request: int, log: int) -> NoReturn:
    """Go on as a stage, and end as one."""
    code = 1
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.clear()
        os.environ.update(message["environment"])
        tempfile.tempdir = None  # to be found anew, in this environment
        os.chdir(message["folder"])
        with os.fdopen(request, encoding="utf-8") as stream:
            child.main(stream)
        code = 0
    except BaseException:  # noqa: BLE001  whatever it is, this process must not go on as a second server
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Entry point of `python -m service.execution.forkserver`."""
    with socket.socket(fileno=os.dup(0)) as control:
        importlib.import_module(PRELOADED)  # in which the kernel kills this process with the service: inside a library's start it hears nothing for long
        orphans.released()  # from here on it ends its stages, and what they left, first
        gc.collect()
        gc.freeze()  # so that a stage's collections do not copy these objects' pages
        serve(control)


if __name__ == "__main__":
    main()
