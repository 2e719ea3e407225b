"""Runs a stage in this process or in one of its own, which gets no token, its limits, and an end."""

import json
import math
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from config import errors
from config import progress as reports
from config.errors import SluiceError, StageError
from engines import orphans, toolchain
from service.execution import progress, words
from service.execution.forking import ForkServer, Stage
from service.execution.kept import Input, Inputs
from service.execution.leaving import checkpoint
from service.execution.log import printed
from service.logs import redact

NOWHERE = Path("/nonexistent")  # the home of the process that starts stages: it keeps nothing, and finds nothing of anybody
LOG_TAIL = 1500  # characters of a dead stage's log that its error shows
_WORDS = {"unforeseen": words.unforeseen, "refused": words.refused, "of_memory": words.of_memory}  # for what a stage raised that is no error of ours


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a stage is expected to need of a machine."""

    memory: int = 0  # bytes, at its peak
    gpu: bool = False  # uses one where there is one


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one stage process may use, and what it asks for."""

    seconds: float
    memory_bytes: int | None
    threads: int
    request: Request = Request()
    silence: float = math.inf  # seconds that it may go without a sign of progress


def run_here(function: Callable[..., dict[str, Any]], workspace: Path, arguments: Mapping[str, Any], *, log: Path) -> dict[str, Any]:
    """Run a stage that needs the network inside the service process. Raises its own error, or StageError for one that nobody foresaw; `log` has its account."""
    try:
        return function(workspace / "files", **arguments)
    except SluiceError:
        raise
    except OSError as error:
        if words.out_of_space(error):  # on which the log would find no room either
            raise StageError(redact(words.of_system(error))) from error
        _account(log)
        raise StageError(redact(words.refused(str(error), (), log))) from error
    except Exception as error:
        _account(log)
        raise StageError(redact(words.unforeseen(f"{type(error).__name__}: {error}", (), log))) from error


def _account(log: Path) -> None:
    """Write the traceback of what was raised to the log; what keeps that from being written is told elsewhere."""
    with suppress(OSError):
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(redact(traceback.format_exc()), encoding="utf-8")


def run_apart(function: str, workspace: Path, inputs: Inputs, params: Mapping[str, Any], *, limits: Limits, log: Path) -> dict[str, Any]:
    """Run a stage in a subprocess of its own, and report what it reports. Raises the stage's own error, or StageError when it was killed, ran or hung too long.

    Of an error that nobody foresaw, the message names the stage, after which the log is called, what it read, and the log, which has the traceback. However
    this ends, the stage and what it started are gone.
    """
    answer, latest = workspace / "answer.json", workspace / "progress.json"
    request = {
        "function": function,
        "out": str(workspace / "files"),
        "answer": str(answer),
        "progress": str(latest),
        "inputs": {name: _absolute(value) if isinstance(value, Input) else [_absolute(item) for item in value] for name, value in inputs.items()},
        "params": dict(params),
        "memory_bytes": limits.memory_bytes,
    }
    with printed(log) as stream, tempfile.TemporaryFile("w+", dir=workspace, encoding="utf-8") as asked:
        json.dump(request, asked)
        asked.flush()
        folder = workspace / "tmp"
        with _fork_server(limits.threads).stage(asked, stream, _environment(limits.threads) | _places(folder), folder) as stage:
            _follow(log.stem, stage, latest, limits)
    latest.unlink(missing_ok=True)
    if stage.status or not answer.exists():
        last = words.without_traceback(log.read_text(encoding="utf-8", errors="replace"))[-LOG_TAIL:]
        raise StageError(words.of_death(_ending(stage.status or 0), last, _files(inputs), log))
    reply = json.loads(answer.read_text(encoding="utf-8"))
    answer.unlink()
    if "error" in reply:
        raise _failure(reply["error"], inputs, log)
    result: dict[str, Any] = reply["result"]
    return result


def _failure(error: Mapping[str, Any], inputs: Inputs, log: Path) -> SluiceError:
    """What the process said of its end, as the error that it was."""
    if (wording := _WORDS.get(error.get("words", ""))) is not None:
        return StageError(wording(error["message"], _files(inputs), log))
    kind: type[SluiceError] = getattr(errors, error["type"], StageError)
    if issubclass(kind, errors.ProgramError):
        return kind(words.of_program(error["message"], _files(inputs), log))
    return kind(words.told(error["message"], log))


def _files(inputs: Inputs) -> list[Path]:
    return [item.path for value in inputs.values() for item in ([value] if isinstance(value, Input) else value)]


def _absolute(given: Input) -> str:
    """Where an input is for the stage, whose working folder is another than this process'."""
    return str(given.path.absolute())


def _follow(name: str, stage: Stage, latest: Path, limits: Limits) -> None:
    """Wait until the stage ends, reporting each new value in the file `latest`. Raises StageError when it takes, or says nothing for, longer than it may."""
    heard = now()
    deadline = heard + limits.seconds
    told = None
    while True:
        ended = stage.wait(min(progress.EVERY, deadline - now()))
        if (found := progress.read(latest)) is not None and found != told:
            reports.report(found.done, found.total, found.unit)
            told, heard = found, now()
        if ended:
            return
        if now() >= deadline:
            raise StageError(f"The stage {name} was stopped after {limits.seconds / 60:.0f} minutes; raise `stage_minutes` in the settings if it needs longer.")
        if now() - heard >= limits.silence:
            raise StageError(
                f"The stage {name} was stopped after {limits.silence / 60:.0f} minutes without a sign of progress, as one that hangs; raise `stuck_minutes` "
                "in the settings if it only needs longer between two of them."
            )
        checkpoint()


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    return f"{name} (probably out of memory)" if name == "SIGKILL" else name


@cache
def _fork_server(threads: int) -> ForkServer:
    """The one that starts stages with so many threads: libraries read that number when they are imported."""
    return ForkServer(_environment(threads) | _places(NOWHERE))


def _environment(threads: int) -> dict[str, str]:
    """Only what a stage needs: nothing of the caller's environment that could hold a token."""
    passed = {
        name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "SLUICE_LLAMA_CPP") if name in os.environ
    }
    return {
        **passed,
        **orphans.marked(),
        **toolchain.ABORTING,
        "SLUICE_CACHE": str(toolchain.cache_root()),
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "passive",  # threads that wait for one another sleep; spinning, torch is ten times slower when another program uses the cores too
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONHASHSEED": "0",
        "TOKENIZERS_PARALLELISM": "false",
    }


def _places(folder: Path) -> dict[str, str]:
    """Where libraries put what they keep: in a folder of the stage's own."""
    matplotlib = folder / "matplotlib"  # its cache of fonts; it warns where it has no folder for that
    return {"HOME": str(folder), "TMPDIR": str(folder), "MPLCONFIGDIR": str(matplotlib)}


def now() -> float:
    """Seconds of a clock that only goes forward."""
    return time.monotonic()
