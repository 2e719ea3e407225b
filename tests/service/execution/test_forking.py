"""The program that starts stages, from outside: what a stage gets of it, and what becomes of stages when either side goes."""

import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from service.execution.forking import NICE, ForkServer, Stage
from tests.service.helpers import alive, eventually

FUNCTIONS = "tests.service.stage_functions"
ROOT = str(Path(__file__).parents[3])


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    server = ForkServer({"PATH": os.environ["PATH"], "PYTHONPATH": ROOT, "OMP_NUM_THREADS": "1"})
    yield server
    if server._running is not None:
        server._running.ended()


@contextmanager
def started(server: ForkServer, folder: Path, function: str, **params: object) -> Iterator[Stage]:
    """A stage with its files in `folder`."""
    folder.mkdir(exist_ok=True)
    request = {
        "function": f"{FUNCTIONS}:{function}",
        "out": str(folder),
        "answer": str(folder / "answer.json"),
        "progress": str(folder / "progress.json"),
        "inputs": {},
        "params": params,
        "memory_bytes": None,
    }
    with tempfile.TemporaryFile("w+", encoding="utf-8") as asked, (folder / "log").open("w", encoding="utf-8") as log:
        json.dump(request, asked)
        asked.flush()
        with server.stage(asked, log, {"HOME": str(folder), "PATH": os.environ["PATH"]}, folder) as stage:
            yield stage


def told(folder: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((folder / "answer.json").read_text())
    return content


def program(server: ForkServer) -> psutil.Process:
    assert server._running is not None
    return psutil.Process(server._running.process.pid)


def test_stages_give_way_to_the_service(server: ForkServer, tmp_path: Path) -> None:
    with started(server, tmp_path, "niceness") as stage:
        assert stage.wait(60)
    assert told(tmp_path)["result"] == {"nice": min(19, os.nice(0) + NICE)}


def test_stages_begin_at_once_and_share_one_import(server: ForkServer, tmp_path: Path) -> None:
    with started(server, tmp_path / "first", "what_is_imported") as stage:
        stage.wait(None)
    before = program(server).pid
    with started(server, tmp_path / "second", "what_is_imported") as stage:
        stage.wait(None)
    assert stage.status == 0
    assert told(tmp_path / "second")["result"] == {"torch": True, "threads": 1}
    assert program(server).pid == before


def test_a_stage_has_its_own_environment_folder_and_session(server: ForkServer, tmp_path: Path) -> None:
    with started(server, tmp_path / "stage", "where_it_is") as stage:
        stage.wait(None)
    result = told(tmp_path / "stage")["result"]
    assert isinstance(result, dict)
    assert result["environment"] == {"HOME": str(tmp_path / "stage"), "PATH": os.environ["PATH"]}
    assert result["folder"] == str(tmp_path / "stage")
    assert result["leads"] is True
    # nothing of the server, of the service or of another stage: its input, its log twice, and the request
    assert result["sockets"] == 0


def test_stages_of_several_threads_run_beside_one_another_and_one_is_ended_alone(server: ForkServer, tmp_path: Path) -> None:
    with started(server, tmp_path / "long", "report_and_wait") as long:
        with started(server, tmp_path / "short", "report_and_wait") as short:
            assert not long.wait(0.1)
        assert short.status == -signal.SIGKILL
        assert not long.wait(0.1)
    assert long.status == -signal.SIGKILL
    assert program(server).children() == []


def test_the_exit_status_is_the_stage_s(server: ForkServer, tmp_path: Path) -> None:
    with started(server, tmp_path / "stage", "report_and_die") as stage:
        stage.wait(None)
    assert stage.status == -signal.SIGKILL


def test_when_the_program_is_killed_its_stages_go_and_the_next_one_has_a_new_program(server: ForkServer, tmp_path: Path) -> None:
    with started(server, tmp_path / "stage", "report_and_wait") as stage:
        before = program(server)
        (child,) = before.children()
        before.kill()
        stage.wait(None)
        assert stage.status == -signal.SIGKILL
        eventually(lambda: not alive(child.pid))
    with started(server, tmp_path / "next", "what_is_imported") as stage:
        stage.wait(None)
    assert stage.status == 0


def test_a_program_that_cannot_start_is_told_with_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    server = ForkServer({})
    with ExitStack() as stack, pytest.raises(Exception, match="no process could be started for a stage: the program that starts them ended without a word"):
        stack.enter_context(started(server, tmp_path, "what_is_imported"))
