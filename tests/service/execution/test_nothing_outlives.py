"""Whatever a service started is gone when it was killed, wherever it was: while the program that starts stages begins, in a stage, in a tool of a stage.

What could not hear of it, because it was stopped or had left its parents, is ended by whoever is started next.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from engines import orphans
from tests.service.helpers import alive, eventually

ROOT = Path(__file__).parents[3]

STAGE = """
from pathlib import Path
from service.execution.process import Limits, run_apart
workspace = Path({folder!r})
(workspace / "tmp").mkdir()
run_apart("tests.service.stage_functions:{function}", workspace, {{}}, {{}}, limits=Limits(seconds=600, memory_bytes=None, threads=1), log=workspace / "log")
"""
SLOW = """
import os
import tempfile
from pathlib import Path
from service.execution.forking import ForkServer
server = ForkServer({{"PATH": os.environ["PATH"], "PYTHONPATH": {path!r}}})
with tempfile.TemporaryFile("w+") as asked, open(os.devnull, "wb") as log, server.stage(asked, log, {{}}, Path({folder!r})):
    pass
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


def test_nor_what_hears_nothing_because_a_library_takes_long_to_begin(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import itertools\nsum(itertools.repeat(1, 10**12))\n", encoding="utf-8")  # no signal is handled in it
    with service(SLOW.format(folder=str(tmp_path), path=f"{tmp_path}:{ROOT}")) as process:
        there = started(process, 1)
        eventually(lambda: sum(there[0].cpu_times()[:2]) > 0.5)  # it is in the middle of that
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


def gone(pids: list[int]) -> None:
    eventually(lambda: not any(alive(pid) for pid in pids), seconds=10)


def swept() -> list[str]:
    """What a program that is started now ends."""
    code = "import json; from engines import orphans; print(json.dumps(orphans.sweep()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    found: list[str] = json.loads(done.stdout)
    return found


def test_what_was_stopped_when_its_service_was_killed_is_ended_at_the_next_start(tmp_path: Path) -> None:
    with service(STAGE.format(folder=str(tmp_path), function="start_a_program")) as process:
        there = started(process, 3)
        pids = [item.pid for item in there]
        os.kill(pids[0], signal.SIGSTOP)  # the program that starts stages
        os.kill(process.pid, signal.SIGKILL)
        process.wait(20)
    assert all(alive(pid) for pid in pids), "nobody told them"
    assert "python" in swept()  # the others may go with it before they are looked at
    gone(pids)


def test_what_left_its_parents_is_ended_at_the_next_start(tmp_path: Path) -> None:
    with service(STAGE.format(folder=str(tmp_path), function="leave_a_program")) as process:
        started(process, 2)
        note = tmp_path / "files" / "pid"
        eventually(lambda: note.exists() and note.read_text().endswith("\n"), seconds=120)
        pid = int(note.read_text())
        os.kill(process.pid, signal.SIGKILL)
        process.wait(20)
    assert alive(pid), "it heard of nothing"
    assert "sleep" in swept()
    gone([pid])


def test_what_a_living_service_has_at_work_is_left_alone(tmp_path: Path) -> None:
    with service(STAGE.format(folder=str(tmp_path), function="start_a_program")) as process:
        pids = [item.pid for item in started(process, 3)]
        swept()
        assert all(alive(pid) for pid in pids)


@pytest.mark.parametrize(
    "mark",
    [
        pytest.param("1:999999999:5", id="of another container"),
        pytest.param(None, id="not ours"),
    ],
)
def test_the_programs_of_others_are_left_alone(mark: str | None) -> None:
    marked = {} if mark is None else {orphans.MARK: mark}
    with subprocess.Popen(["sleep", "600"], env={**os.environ, **marked}) as other:
        try:
            swept()
            assert other.poll() is None
        finally:
            other.kill()
