"""Words for how a stage failed: what it was, where all of it stands, what to do; a library's traceback stays in the log."""

import errno
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

_BEGINNING = "Traceback (most recent call last):"
_FRAME = re.compile(r'\s*File "[^"\n]*", line \d+')
_REPORT = "look whether other programs can use the model, and report this with that file and the model's name."
_MEMORY = "Let other programs leave it more memory, or use a machine that has more, then run it again: it goes on where it was."
_ROOM = (errno.ENOSPC, errno.EDQUOT)
_CHAINED = ("During handling of the above exception", "The above exception was the direct cause")


def unforeseen(error: str, files: Iterable[Path], log: Path) -> str:
    """For an error that nobody wrote a sentence for: its type and text, what the stage had read, and the log, which is called after the stage."""
    said = f"The stage {log.stem} failed in a way that Sluice has no advice for: {without_traceback(error)}."
    return f"{said} {_read(files)}{log} has all that is known: {_REPORT}"


def of_program(message: str, files: Iterable[Path], log: Path) -> str:
    """For a program that ended with an error: what it said last, which stage it worked for, what that had read, what to do."""
    where = f"It worked for the stage {log.stem}. {_read(files)}"
    return f"{without_traceback(message).rstrip()}\n{where}{_next(message, f'{log} has all that it printed')}"


def of_death(ending: str, last: str, files: Iterable[Path], log: Path) -> str:
    """For a stage that ended without a word: how, the end of what it printed, what it had read, what to do."""
    said = f" It had printed last:\n{last.strip()}\n" if last.strip() else " "
    return f"The stage {log.stem} ended with {ending}.{said}{_read(files)}{_next(ending, f'{log} has all that it printed')}"


def _read(files: Iterable[Path]) -> str:
    named = ", ".join(map(str, files))
    return f"It read {named}. " if named else ""


def _next(said: str, found: str) -> str:
    """What a person does about a program's end: what the kernel kills is no fault of the model."""
    return f"{found}. {_MEMORY}" if "SIGKILL" in said else f"{found}: {_REPORT}"


def of_system(error: OSError) -> str:
    """For what the system refused, the disk's room first of all."""
    room = "free some space, or set `home` to a folder on a larger disk"
    rights = "look whether the user that Sluice runs as may read and write there, and whether that disk is sound"
    return f"{error}; {room if out_of_space(error) else rights}"


def refused(error: str, files: Iterable[Path], log: Path) -> str:
    """For what the system refused a stage: what it said, what the stage had read, and the log, which is called after the stage."""
    look = "look whether the user that Sluice runs as may read and write what is named there, and whether its disk is sound, then run it again"
    return f"The stage {log.stem} was refused something by the system: {without_traceback(error)}. {_read(files)}{log} has all that is known: {look}."


def of_memory(error: str, files: Iterable[Path], log: Path) -> str:
    """For a stage that got no more memory: what it said, what it had read, and how it gets more."""
    more = "Raise `memory_gib` in the settings where it is set, let other programs leave more memory, or use a machine that has more, then run it again"
    said = f" ({error})" if error else ""
    return f"The stage {log.stem} ran out of memory{said}. {_read(files)}{more}: it goes on where it was."


def out_of_space(error: BaseException) -> bool:
    """Whether something says that it failed because a disk is full, or no more of it is granted."""
    return (isinstance(error, OSError) and error.errno in _ROOM) or any(os.strerror(number) in str(error) for number in _ROOM)


def full(place: Path, doing: str) -> str:
    """For the disk of a folder, on which there is no space: what could not be done, and what to do."""
    free = shutil.disk_usage(place).free
    return (
        f"The disk of {place} is full ({free / 1e6:,.1f} MB are free), so {doing} could not be done. Free some space (`sluice prune` throws away what nobody "
        "needs), or set `home` to a folder on a larger disk, then run it again: it goes on where it was."
    )


def told(message: str, log: Path) -> str:
    """An expected error's message, without the traceback that a program may have ended its output with."""
    plain = without_traceback(message)
    return message if plain == message else f"{plain.rstrip()}\n{log} has all that it printed. If other programs can use the model, report this with that file."


def without_traceback(text: str) -> str:
    """The text without the lines of Python's tracebacks, whole or cut off at the beginning; the exceptions that they end with stay."""
    lines = text.splitlines()
    if not any(_FRAME.match(line) for line in lines):
        return text
    first = next(number for number, line in enumerate(lines) if line.startswith(_BEGINNING) or _FRAME.match(line))
    while first and lines[first - 1].startswith("    "):  # of a frame that was cut off
        first -= 1
    kept = [line for line in lines[first:] if line.strip() and not line.startswith((" ", "\t", _BEGINNING, *_CHAINED))]
    return "\n".join(lines[:first] + kept)
