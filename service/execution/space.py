"""Failures for want of space, told as such, whatever the program that met the full disk made of it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from config.errors import HubUnavailable, MeasurementError, NoSpace, SluiceError, StageError, ToolError
from service.execution import words

FULL = 4_000_000  # bytes; where fewer are free, a program that failed, in whatever words, has failed for want of more


@contextmanager
def with_space(place: Path, doing: str) -> Iterator[None]:
    """Raise NoSpace where the block fails because the disk of `place` is full, and else what it raises; `doing` is what could not be done."""
    try:
        yield
    except (NoSpace, HubUnavailable):
        raise
    except (SluiceError, OSError) as error:
        vague = isinstance(error, StageError | ToolError | MeasurementError) and shutil.disk_usage(place).free < FULL
        if vague or words.out_of_space(error):
            raise NoSpace(words.full(place, doing)) from error
        raise
