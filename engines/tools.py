"""Runs llama.cpp's programs and its converter: no shell, no secrets in their environment, and the end of their output in the error."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from config.errors import ToolError
from engines import toolchain

PASSED = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
LAST_LINES = 15  # of the output, shown in an error


def run(name: str, *arguments: str | Path, log: Path | None = None, timeout: float | None = None, cwd: Path | None = None) -> str:
    """Run a llama.cpp program by name and return its output, standard error included; keep it at `log` when given.

    `timeout` is in seconds. Raises ToolError when the program is missing, ends with an error or is stopped by the timeout.
    """
    return execute([toolchain.tool(name), *arguments], log=log, timeout=timeout, cwd=cwd)


def convert(*arguments: str | Path, log: Path | None = None, timeout: float | None = None, cwd: Path | None = None) -> str:
    """Run `convert_hf_to_gguf.py` in a Python of its own, which reads no user site-packages; otherwise like `run`."""
    return execute([sys.executable, "-s", toolchain.converter(), *arguments], log=log, timeout=timeout, cwd=cwd)


def execute(command: Sequence[str | Path], *, log: Path | None = None, timeout: float | None = None, cwd: Path | None = None) -> str:
    """Run any program as `run` does. The output goes to a file first, so that a program that floods it cannot fill the memory of a pipe's reader."""
    with log.open("w+b") if log else tempfile.TemporaryFile() as output:
        try:
            result = subprocess.run(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={name: os.environ[name] for name in PASSED if name in os.environ},
                cwd=cwd,
                timeout=timeout,
                check=False,
            )
            ending = _ending(result.returncode)
        except subprocess.TimeoutExpired:
            ending = f"was stopped after {timeout:g} seconds"
        except OSError as error:
            raise ToolError(f"{command[0]} cannot be run: {error.strerror}. Run `make setup` to repair the llama.cpp tools.") from error
        output.seek(0)
        text = output.read().decode("utf-8", errors="replace")
    if ending is None:
        return text
    where = f" Its whole output is in {log}." if log else ""
    last = "\n".join(text.splitlines()[-LAST_LINES:])
    raise ToolError(f"{_name(command)} {ending}.{where} It ends with:\n{last}")


def _name(command: Sequence[str | Path]) -> str:
    """The program's name; of a Python script, the script's."""
    script = next((part for part in command if Path(part).suffix == ".py"), None)
    return Path(script if script and command[0] == sys.executable else command[0]).name


def _ending(code: int) -> str | None:
    if code == 0:
        return None
    return f"ended with exit code {code}" if code > 0 else f"was ended by {signal.Signals(-code).name}"
