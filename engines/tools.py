"""Runs llama.cpp's programs and its converter: no shell, no secrets in their environment, and the end of their output in the error.

How far they have come is read in their output while they run, and reported.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from config.errors import ConversionError, ProgramError, ToolError
from engines import orphans, printed, toolchain
from engines.printed import Form

PASSED = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
LAST_LINES = 15  # of the output, shown in an error
KEPT = 2**24  # bytes of the output's end that are returned
POLL = 0.25  # seconds between two looks at the output
PIECE = 2**20  # bytes of new output that one look takes in; of more it takes the last
OUT_OF_MEMORY = " (probably out of memory)"  # of what the kernel kills, nothing else says so
FLOOD = 2**28  # bytes of output at which a program is stopped: none of ours has so much to say, and no disk has room for one that never ends


class _Flood(Exception):
    """The program prints without end."""


def run(name: str, *arguments: str | Path, log: Path | None = None, timeout: float | None = None, cwd: Path | None = None) -> str:
    """Run a llama.cpp program by name and return its output, standard error included, the last KEPT bytes of it; keep all at `log` when given.

    Progress is reported of those that `engines.printed` knows. `timeout` is in seconds.
    Raises ToolError when the program is missing, and ProgramError when it ends with an error or is stopped.
    """
    return execute([toolchain.tool(name), *arguments], log=log, timeout=timeout, cwd=cwd, form=printed.FORMS.get(name))


def convert(*arguments: str | Path, log: Path | None = None, timeout: float | None = None, cwd: Path | None = None) -> str:
    """Run `convert_hf_to_gguf.py` in a Python of its own, which reads no user site-packages; otherwise like `run`.

    Raises ConversionError when it ends by itself with an error, which is about the model; one that is killed, is stopped or cannot be run is told as by `run`.
    """
    try:
        return execute([sys.executable, "-s", toolchain.converter(), *arguments], log=log, timeout=timeout, cwd=cwd, form=printed.CONVERTER)
    except ProgramError as error:
        if error.killed:
            raise
        raise ConversionError(str(error)) from error


def execute(command: Sequence[str | Path], *, log: Path | None = None, timeout: float | None = None, cwd: Path | None = None, form: Form | None = None) -> str:
    """Run any program as `run` does; `form` is how it states its progress. It is gone when this process is, however that ends.

    The output goes to a file first, so that a program that floods it fills no memory.
    """
    with log.open("w+b") if log else tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(),
                cwd=cwd,
                preexec_fn=orphans.prevented(),  # noqa: PLW1509 (it only calls the kernel)
            )
        except OSError as error:
            raise ToolError(f"{command[0]} cannot be run: {error.strerror}. Run `make setup` to repair the llama.cpp tools.") from error
        try:
            _follow(process, output, timeout, form)
            ending = _ending(process.returncode)
        except subprocess.TimeoutExpired:
            ending = f"was stopped after {timeout:g} seconds"
        except _Flood:
            ending = f"was stopped when it had printed {FLOOD // 2**20} MiB"
        finally:
            process.kill()
            process.wait()
        text = _after(output, os.fstat(output.fileno()).st_size - KEPT)[0]
    if ending is None:
        return text
    where = f" Its whole output is in {log}." if log else ""
    last = "\n".join(text.splitlines()[-LAST_LINES:])
    raise ProgramError(f"{_name(command)} {ending}.{where} It ends with:\n{last}", killed=process.returncode < 0)


def environment() -> dict[str, str]:
    """What llama.cpp's programs find in their environment: no secrets."""
    return orphans.marked() | toolchain.ABORTING | {name: os.environ[name] for name in PASSED if name in os.environ}


def _follow(process: "subprocess.Popen[bytes]", output: BinaryIO, timeout: float | None, form: Form | None) -> None:
    """Wait until the program ends, and meanwhile read what it prints. Raises TimeoutExpired, _Flood."""
    read, position = (lambda piece: None) if form is None else printed.reader(form), 0
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        with suppress(subprocess.TimeoutExpired):
            process.wait(POLL if deadline is None else max(0, min(POLL, deadline - time.monotonic())))
        size = os.fstat(output.fileno()).st_size
        piece, position = _after(output, max(position, size - PIECE))
        read(piece)
        if process.returncode is not None:
            return
        if size > FLOOD:
            raise _Flood
        if deadline is not None and time.monotonic() >= deadline:
            raise subprocess.TimeoutExpired(process.args, timeout or 0)


def _after(output: BinaryIO, position: int) -> tuple[str, int]:
    """What is in the file from that byte on, and where that ends. The program writes at the file's own position, which stays where it is."""
    start = max(0, position)
    found = os.pread(output.fileno(), os.fstat(output.fileno()).st_size - start, start)
    return found.decode("utf-8", errors="replace"), start + len(found)


def _name(command: Sequence[str | Path]) -> str:
    """The program's name; of a Python script, the script's."""
    script = next((part for part in command if Path(part).suffix == ".py"), None)
    return Path(script if script and command[0] == sys.executable else command[0]).name


def _ending(code: int) -> str | None:
    if code == 0:
        return None
    if code > 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name
    return f"was ended by {name}{OUT_OF_MEMORY if name == 'SIGKILL' else ''}"
