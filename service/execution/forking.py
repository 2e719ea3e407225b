"""The service's side of the program that starts stages: it is started, asked for a stage, told to end one."""

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Thread
from typing import IO

from config.errors import StageError
from engines import orphans
from service.execution import words
from service.execution.forkserver import STARTED, STATUS

REASON = 1000  # characters of a reason that are told
NICE = 10  # how much nicer stages are than the service, which is to be answering whatever they compute: without it, that takes it seconds
ENDS = 2.0  # seconds that the program gets to end its stages; it takes none, unless it is not there yet
NONE = "no process could be started for a stage"


class ForkServer:
    """The program, as its client sees it: started when it is first needed, and again when it has ended. For any number of threads."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """`environment`: of the program, thus what libraries find when they are imported."""
        self._environment = dict(environment)
        self._lock = Lock()
        self._running: _Running | None = None

    @contextmanager
    def stage(self, request: IO[str], log: IO[bytes], environment: Mapping[str, str], folder: Path) -> Iterator["Stage"]:
        """A stage that does what `request` says (JSON, read from its beginning), with this environment and working folder; its output goes to `log`.

        After the block the stage is gone, and so is whatever it started. Raises StageError when no process can be started.
        """
        message = json.dumps({"environment": dict(environment), "folder": str(folder)}).encode()
        request.seek(0)
        with self._asked(message, [request.fileno(), log.fileno()]) as line:
            stage = Stage(line)
            try:
                yield stage
            finally:
                with suppress(OSError):
                    line.shutdown(socket.SHUT_WR)  # the program's sign to end what still runs
                stage.wait(None)

    def _asked(self, message: bytes, files: list[int]) -> socket.socket:
        said = ""
        for _ in range(2):  # once more when it had just ended, having nothing to do
            with self._lock:
                running = self._running = self._running or _Running.begun(self._environment)
            line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            with theirs, suppress(OSError):
                socket.send_fds(running.control, [message], [*files, theirs.fileno()])
            with suppress(ConnectionResetError):
                if (first := line.recv(1)) == STARTED:
                    return line
                if first:
                    said = (first + line.recv(REASON)).decode()
                    line.close()
                    raise StageError(f"{NONE}: {said}")
            line.close()
            with self._lock:
                if self._running is running:
                    self._running = None
            said = running.ended()
        raise StageError(
            f"no process could be started for a stage: {words.without_traceback(said)[-1000:] or 'the program that starts them ended without a word'}"
        )


@dataclass(frozen=True)
class _Running:
    """The program, running."""

    process: subprocess.Popen[bytes]
    control: socket.socket
    said: IO[str]

    @classmethod
    def begun(cls, environment: Mapping[str, str]) -> "_Running":
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        said = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115  open as long as the program runs
        begun: Future[subprocess.Popen[bytes]] = Future()
        Thread(target=_live, args=(begun, theirs, said, dict(environment)), name="fork server", daemon=True).start()
        process = begun.result()
        with suppress(OSError):  # it has ended, which whoever asks it will be told
            os.setpriority(os.PRIO_PROCESS, process.pid, os.getpriority(os.PRIO_PROCESS, 0) + NICE)  # the kernel knows the highest
        running = cls(process, control, said)
        atexit.register(running.ended)
        return running

    def ended(self) -> str:
        """End it; what it said of itself, nothing when this was asked before."""
        atexit.unregister(self.ended)
        self.control.close()
        try:
            self.process.wait(ENDS)
        except subprocess.TimeoutExpired:  # it is still being imported
            self.process.kill()
            self.process.wait()
        if self.said.closed:
            return ""
        with self.said as said:
            said.seek(0)
            return said.read().strip()


def _live(begun: "Future[subprocess.Popen[bytes]]", control: socket.socket, said: IO[str], environment: Mapping[str, str]) -> None:
    """Start the program and last as long as it does: the kernel takes the thread that started it for its parent. It ends by itself, and leaves no zombie."""
    command = [sys.executable, "-m", "service.execution.forkserver"]
    with control:
        try:
            process = subprocess.Popen(
                command,
                stdin=control.fileno(),
                stdout=said,
                stderr=said,
                env=environment,
                cwd="/",
                start_new_session=True,
                preexec_fn=orphans.prevented(),  # noqa: PLW1509 (it only calls the kernel)
            )
        except BaseException as error:  # noqa: BLE001  it is told to who waits for the program
            begun.set_exception(error)
            return
    begun.set_result(process)
    process.wait()


class Stage:
    """A stage that runs, or has run."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self.status: int | None = None  # as `subprocess.Popen.returncode`, once it has ended

    def wait(self, seconds: float | None) -> bool:
        """Whether it ends within these seconds, or has ended."""
        if self.status is None:
            if seconds is not None and not select.select([self._line], [], [], max(0, seconds))[0]:
                return False
            answer = self._line.recv(STATUS.size, socket.MSG_WAITALL)
            # without an answer the program itself was killed, and the kernel killed the stage with it
            self.status = STATUS.unpack(answer)[0] if len(answer) == STATUS.size else -signal.SIGKILL
        return True
