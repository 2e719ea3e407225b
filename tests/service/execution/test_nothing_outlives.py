"""Whatever a service started is gone when it was killed, wherever it was: while the program that starts stages begins, in a stage, in a tool of a stage."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.service.helpers import alive, eventually

ROOT = Path(__file__).parents[3]

STAGE = """
from pathlib import Path
from service.execution.process import Limits, run_apart
workspace = Path({folder!r})
(workspace / "tmp").mkdir()
run_apart("tests.service.stage_functions:{function}", workspace, {{}}, {{}}, limits=Limits(seconds=600, memory_bytes=None, threads=1), log=workspace / "log")
"""
SPEED = """
from service.machine.speed import measure
measure(1, seconds=600)
"""


@contextmanager
def service(code: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program that does what a service does."""
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}) as process:
        try:
            yield process
        finally:
            process.kill()


def started(process: subprocess.Popen[bytes], depth: int) -> list[psutil.Process]:
    """All that it has started, once that reaches so deep."""
    found: list[psutil.Process] = []

    def deep_enough() -> bool:
        assert process.poll() is None, "it ended by itself"
        level, every = [psutil.Process(process.pid)], []
        for _ in range(depth):
            level = [child for parent in level for child in parent.children()]
            every += level
        found[:] = every
        return bool(level)

    eventually(deep_enough, seconds=120)
    return found


@pytest.mark.parametrize(
    ("code", "depth"),
    [
        pytest.param(STAGE.format(folder="{folder}", function="report_and_wait"), 1, id="while the fork server begins"),
        pytest.param(STAGE.format(folder="{folder}", function="report_and_wait"), 2, id="in a stage"),
        pytest.param(STAGE.format(folder="{folder}", function="start_a_program"), 3, id="in a program of a stage"),
        pytest.param(SPEED, 1, id="while the machine is measured"),
    ],
)
def test_nothing_outlives_a_service_that_is_killed(tmp_path: Path, code: str, depth: int) -> None:
    with service(code.replace("{folder}", str(tmp_path))) as process:
        there = started(process, depth)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(20)
        eventually(lambda: not any(alive(item.pid) for item in there), seconds=5)


def test_nor_one_that_is_killed_with_the_program_that_starts_stages(tmp_path: Path) -> None:
    with service(STAGE.format(folder=str(tmp_path), function="start_a_program")) as process:
        there = started(process, 3)
        for pid in (there[0].pid, process.pid):
            os.kill(pid, signal.SIGKILL)
        process.wait(20)
        eventually(lambda: not any(alive(item.pid) for item in there), seconds=5)
