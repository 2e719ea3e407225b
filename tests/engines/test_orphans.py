"""Programs that we start end with us, however we end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from engines import orphans

ROOT = Path(__file__).parents[2]
WAIT = 20.0  # seconds

IMATRIX = """
from engines import tools
tools.run("llama-imatrix", "-m", {gguf!r}, "-f", {text!r}, "-o", {out!r}, "-c", "128", "-t", "1", "-ngl", "0")
"""
SERVER = """
import time
from pathlib import Path
from engines import llama_server
with llama_server.serve(Path({gguf!r}), threads=1):
    time.sleep(600)
"""


def child_of(process: subprocess.Popen[bytes], name: str) -> psutil.Process:
    """The program of that name that the process started, once it runs."""
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        for child in psutil.Process(process.pid).children():
            if child.name() == name:
                return child
        time.sleep(0.02)
    raise AssertionError(f"{name} was not started")


@pytest.mark.parametrize(("script", "name"), [(IMATRIX, "llama-imatrix"), (SERVER, "llama-server")])
def test_a_tool_is_gone_when_who_started_it_is_killed(gguf: Path, tmp_path: Path, script: str, name: str) -> None:
    text = tmp_path / "text"
    text.write_text("One of many words, and then some more.\n" * 100_000)  # minutes of work
    code = script.format(gguf=str(gguf), text=str(text), out=str(tmp_path / "out.gguf"))
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as parent:
        try:
            tool = child_of(parent, name)
            assert tool.is_running()
        finally:
            parent.kill()
    assert not psutil.wait_procs([tool], timeout=5)[1]


def test_a_program_whose_parent_is_already_gone_does_not_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "getpid", lambda real=os.getppid: real())  # as if this process had been another, which is not the new one's parent
    ask = orphans.prevented()
    monkeypatch.undo()
    with subprocess.Popen([sys.executable, "-c", f"open({str(tmp_path / 'ran')!r}, 'w')"], preexec_fn=ask) as process:  # noqa: PLW1509 (it only calls the kernel)
        assert process.wait(WAIT) == -signal.SIGKILL
    assert not (tmp_path / "ran").exists()
