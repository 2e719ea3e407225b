"""Several worlds at once, each a process with a folder, a Hub, a proxy and services of its own: most of what the soak takes is waiting."""

import ctypes
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import structlog
from huggingface_hub import constants
from huggingface_hub.utils.tqdm import disable_progress_bars

from bench.soak.found import Found, together
from bench.soak.parts import PARTS
from bench.soak.share import Share, shares
from bench.soak.world import world

LINES = 20  # told of each part while it goes on
ENDS = 60.0  # seconds that a world gets to take down what it has put up
_PR_SET_PDEATHSIG = 1  # prctl(2)


@dataclass(frozen=True, kw_only=True)
class Given:
    """What was asked of the soak."""

    worlds: int
    minutes: float  # for each part, at most
    seed: int
    database: str | None = None  # URL of a PostgreSQL server


def in_worlds(name: str, number: int, given: Given) -> Found:
    """Do a part in so many worlds together; what they found is told as it comes, and once more in the end, however that comes."""
    part, began = PARTS[name], time.monotonic()
    lots = shares(number, given.worlds if part.shared_out else 1, until=began + 60 * given.minutes, seed=f"{given.seed} {name}")
    lines: dict[Connection, int] = {}
    found = {world: Found(name, lot.number) for world, lot in enumerate(lots)}
    told = _Telling(name, number, began)
    with ExitStack() as stack:
        processes = []
        for index, lot in enumerate(lots):
            line, process = stack.enter_context(_begun(name, lot, given.database))
            lines[line] = index
            processes.append(process)
        try:
            while lines:
                for line in set(lines).intersection(wait(lines)):
                    index = lines[line]
                    try:
                        found[index] = line.recv()
                    except EOFError:
                        del lines[line]
                        found[index].wrong += _gone(processes[index])
                    told.more(together(name, number, found.values()))
        finally:
            told.last(together(name, number, found.values()))
    return together(name, number, found.values())


class _Telling:
    """Prints what a part has found so far, now and then, and what is wrong at once."""

    def __init__(self, name: str, number: int, began: float) -> None:
        self._every, self._told = max(1, number // LINES), 0
        self._wrong = set[str]()
        self._began = began

    def more(self, found: Found) -> None:
        """Hear of it."""
        for line in found.faults:
            if line not in self._wrong:
                self._wrong.add(line)
                print(f"  wrong: {line}", flush=True)
        if found.done.total() // self._every > self._told:
            self._told = found.done.total() // self._every
            self.last(found)

    def last(self, found: Found) -> None:
        """Print it."""
        print(found.told((time.monotonic() - self._began) / 60), flush=True)


def _gone(process: Any) -> list[str]:
    """What is wrong with how a world's process ended."""
    process.join()
    return [] if process.exitcode == 0 else [f"a world ended with {process.exitcode}, and what it was at is not judged"]


@contextmanager
def _begun(name: str, lot: Share, server: str | None) -> Iterator[tuple[Connection, Any]]:
    """A world at work, and the line on which it tells what it finds; it is gone after the block."""
    context = get_context("spawn")  # which shares no state of this process, nor a thread's lock
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(name, lot, server, theirs, os.getpid()))
    process.start()
    theirs.close()
    try:
        yield ours, process
    finally:
        process.terminate()
        process.join(ENDS)
        process.kill()
        process.join()
        ours.close()


def _work(name: str, lot: Share, server: str | None, line: Connection, parent: int) -> None:
    """What a world's process does."""
    _end_with(parent)
    constants.HF_HUB_DISABLE_XET = True  # the embedded Hub stores files by LFS
    disable_progress_bars()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))  # of what runs in this process
    latest = Found(name, lot.number)

    def told(found: Found) -> None:
        nonlocal latest
        latest = found
        line.send(found)

    with TemporaryDirectory(prefix="sluice-soak-", ignore_cleanup_errors=True) as folder, world(Path(folder), server) as built:
        try:
            latest = PARTS[name].carry_out(built, replace(lot, told=told))
        except Exception as error:  # noqa: BLE001  whatever it is, what was found before is told
            latest.wrong.append(f"given up: {type(error).__name__}: {error}")
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    latest.processor = sum(each.ru_utime + each.ru_stime for each in used) + sum(built.spent)
    line.send(latest)


def _end_with(parent: int) -> None:
    """Take everything down when this process is told to end, also by the end of its parent."""

    def end(number: int, _frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)
