"""How far a stage has come, from its own process to whoever watches; and that nothing of it outlives who waits for it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from config.errors import StageError
from config.progress import Progress, report
from config.settings import Settings
from engines import tools
from service.daemon.worker import Stopped
from service.execution import progress as relayed
from service.execution.kept import StageStore
from service.execution.process import Limits, run_apart
from service.execution.workbench import Event, Workbench
from tests.heard import hearing, phases, whole
from tests.service.helpers import alive, eventually

ROOT = Path(__file__).parents[3]
FUNCTIONS = "tests.service.stage_functions"
LIMITS = Limits(seconds=60, memory_bytes=None, threads=1)
WAIT = 20.0  # seconds


@pytest.fixture
def demo_gguf(tmp_path: Path) -> Path:
    tools.convert(ROOT / "demo" / "model", "--outtype", "bf16", "--outfile", tmp_path / "model.gguf")
    return tmp_path / "model.gguf"


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., Workbench]:
    settings = Settings(home=tmp_path / "home")
    return lambda listener, **more: Workbench(settings=settings, stages=StageStore(settings.folder), listener=listener, **more)


def test_a_stage_that_counts_is_seen_counting_while_it_runs(bench: Callable[..., Workbench]) -> None:
    told: list[tuple[float, Event]] = []
    at = bench(lambda event: told.append((time.monotonic(), event)), estimates={"count": 7.5})
    kept = at.apart("count", f"{FUNCTIONS}:count", {}, threaded=False, steps=6, seconds=0.6)
    (began, first), *between, (ended, last) = told
    assert (first.state, first.estimate) == ("started", 7.5)
    assert last.state == "done"
    assert {event.state for _, event in between} == {"progressed"}
    steps = [(when, event) for when, event in between if event.progress is not None and event.progress.unit == "steps"]
    assert len(steps) >= 4
    assert all(event.progress.total == 6 for _, event in steps if event.progress)
    assert steps[1][0] < ended - 1, "while it runs, not afterwards"
    assert all(0 < event.seconds <= when - began + 0.1 for when, event in between)
    assert between[-1][1].progress == Progress(done=1000, total=1000, unit="words")
    assert len(between) < 3.6 / relayed.EVERY + 4, "no more often than a person can follow"
    assert not (kept.folder / "progress.json").exists()


def test_what_is_found_again_is_neither_estimated_nor_counted_anew(bench: Callable[..., Workbench]) -> None:
    told: list[Event] = []
    at = bench(told.append)
    for _ in range(2):
        at.apart("count", f"{FUNCTIONS}:count", {}, threaded=False, steps=1, seconds=0.0)
    assert [event.state for event in told if event.state != "progressed"] == ["started", "done", "started", "reused"]
    assert told[-2].estimate is None


def test_a_stage_in_this_process_is_heard_as_often(bench: Callable[..., Workbench]) -> None:
    told: list[Event] = []

    def stage(out: Path) -> dict[str, object]:
        for done in range(1, 100_001):
            report(done, 100_000, "bytes")
        thread = threading.Thread(target=lambda: report(0, 1, "bytes"))  # without a listener: a context of its own
        thread.start()
        thread.join()
        return {}

    stage.__module__ = FUNCTIONS  # whose VERSION it has
    bench(told.append).here("fetch", stage, {})
    heard = [event.progress for event in told if event.state == "progressed"]
    assert heard[0] == Progress(done=1, total=100_000, unit="bytes")
    assert heard[-1] == Progress(done=100_000, total=100_000, unit="bytes")
    assert len(heard) < 20


def test_a_report_before_a_long_silence_is_heard_in_the_silence(tmp_path: Path) -> None:
    limits = Limits(seconds=8, memory_bytes=None, threads=1)
    with hearing() as found, StageStore(tmp_path).workspace("0" * 64) as workspace, pytest.raises(StageError, match="raise `stage_minutes`"):
        run_apart(f"{FUNCTIONS}:report_and_wait", workspace, {}, {}, limits=limits, log=tmp_path / "log")
    assert found == [Progress(done=2, total=9, unit="windows")]


def test_a_stage_that_hangs_is_stopped_after_its_last_sign_of_progress(tmp_path: Path) -> None:
    limits = replace(LIMITS, silence=3)
    said = r"without a sign of progress.*`stuck_minutes`"
    with hearing() as found, StageStore(tmp_path).workspace("0" * 64) as workspace, pytest.raises(StageError, match=said):
        run_apart(f"{FUNCTIONS}:report_and_wait", workspace, {}, {}, limits=limits, log=tmp_path / "log")
    assert found == [Progress(done=2, total=9, unit="windows")]


def test_one_that_is_slow_goes_on_as_long_as_it_says_so(tmp_path: Path) -> None:
    with StageStore(tmp_path).workspace("0" * 64) as workspace:
        assert run_apart(f"{FUNCTIONS}:count", workspace, {}, {"steps": 8, "seconds": 1}, limits=replace(LIMITS, silence=4), log=tmp_path / "log") == {}


def test_what_a_dying_stage_had_done_is_told(tmp_path: Path) -> None:
    with hearing() as found, StageStore(tmp_path).workspace("0" * 64) as workspace, pytest.raises(StageError, match="SIGKILL"):
        run_apart(f"{FUNCTIONS}:report_and_die", workspace, {}, {}, limits=LIMITS, log=tmp_path / "log")
    assert found == [Progress(done=1, total=2, unit="steps")]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"done": "x", "total": 1, "unit": "y"}', '{"done": 1}', "\xff"])
def test_a_file_that_says_nothing_is_no_progress(tmp_path: Path, content: str) -> None:
    path = tmp_path / "progress.json"
    assert relayed.read(path) is None
    path.write_text(content, encoding="latin-1")
    assert relayed.read(path) is None


def test_the_file_is_whole_whenever_it_is_read(tmp_path: Path) -> None:
    path, wanted = tmp_path / "progress.json", [Progress(done=n, total=n, unit="u" * n) for n in range(1, 500)]
    stop = threading.Event()
    read: list[str] = []

    def look() -> None:
        while not stop.is_set():
            if path.exists():
                read.append(path.read_text())

    thread = threading.Thread(target=look)
    thread.start()
    for item in wanted:
        relayed._replace(path, item)
    stop.set()
    thread.join()
    assert read
    assert all(len(found["unit"]) == found["done"] for found in map(json.loads, read))
    assert relayed.read(path) == wanted[-1]


def test_a_full_disk_stops_no_stage(tmp_path: Path) -> None:
    with relayed.written_to(tmp_path / "absent" / "progress.json"):
        report(1, 2, "steps")


class Interrupted(BaseException):
    """What no stage and no caller expects."""


@pytest.mark.parametrize("error", [KeyboardInterrupt, Stopped, Interrupted])
def test_an_interrupted_wait_leaves_no_process(tmp_path: Path, error: type[BaseException]) -> None:
    note = tmp_path / "note"

    def interrupt(*_: object) -> None:
        raise error

    def wait_and_signal() -> None:
        deadline = time.monotonic() + WAIT
        while not (note.exists() and note.read_text().endswith("\n")) and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        threading.Thread(target=wait_and_signal).start()
        with StageStore(tmp_path).workspace("0" * 64) as workspace, pytest.raises(error):
            run_apart(f"{FUNCTIONS}:start_another", workspace, {}, {"note": str(note)}, limits=LIMITS, log=tmp_path / "log")
    finally:
        signal.signal(signal.SIGUSR1, before)
    eventually(lambda: not [pid for pid in map(int, note.read_text().split()) if alive(pid)])


SERVICE = """
import sys
from pathlib import Path
from config.settings import Settings
from service.execution import process
from service.execution.kept import Input, StageStore
from service.execution.workbench import Workbench
home, gguf, text = map(Path, sys.argv[1:])
bench = Workbench(settings=Settings(home=home), stages=StageStore(home))
inputs = {"model": bench.data(gguf), "gguf": bench.data(gguf), "chat": [], "plain": [bench.data(text)]}
bench.apart("imatrix", "builders.calibrate:imatrix", inputs, tokens=10_000_000, context=128)
"""


def test_llama_cpp_is_gone_when_the_service_is_killed(demo_gguf: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("One of many words, and then some more.\n\n" * 20_000)
    with subprocess.Popen([sys.executable, "-c", SERVICE, str(tmp_path / "home"), str(demo_gguf), str(text)], cwd=ROOT) as service:
        try:
            deadline, started = time.monotonic() + 3 * WAIT, psutil.Process(service.pid)
            while not (found := [child for child in started.children(recursive=True) if child.name() == "llama-imatrix"]) and time.monotonic() < deadline:
                time.sleep(0.05)
            family = started.children(recursive=True)
        finally:
            service.kill()
    assert found, "llama-imatrix was started"
    assert not psutil.wait_procs(family, timeout=5)[1]


def test_phases_are_told_apart() -> None:
    counts = [(0, 2), (1, 2), (2, 2), (0, 3), (3, 3), (1, 3)]
    found = [Progress(done=done, total=total, unit="windows") for done, total in counts]
    assert [len(phase) for phase in phases(found)] == [3, 2, 1]
    assert whole(found, "windows") == [2, 3]
