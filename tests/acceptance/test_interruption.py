"""A run that is told to end leaves no process behind, says where it was, and is not said to be running afterwards."""

import json
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.acceptance.conftest import PROGRAMS, UPSTREAM, Hub, environment, slow_recipe, sluice, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def told_to_end(hub: Hub, home: Path, recipe: Path, number: signal.Signals) -> str:
    """Start a run, send it the signal while llama-imatrix works, and look for what it leaves; its last words."""
    with subprocess.Popen(
        [PROGRAMS / "sluice", "run", UPSTREAM, "--recipe", recipe],
        env=environment(**hub.environment(home)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        running = psutil.Process(process.pid)

        def llama_works() -> list[psutil.Process]:
            assert process.poll() is None, "the run ended before it could be interrupted"
            found = running.children(recursive=True)
            try:
                return found if any(child.name().startswith("llama-imatrix") for child in found) else []
            except psutil.NoSuchProcess:
                return []

        started = wait_until(llama_works, seconds=400, what="llama-imatrix")
        assert len(started) >= 2, "the stage and its llama.cpp"
        process.send_signal(number)
        _, left = psutil.wait_procs(started, timeout=10)
        assert left == []
        out, errors = process.communicate(timeout=20)
        assert process.returncode == 1, errors
        told = [line.split()[-1] for line in out.splitlines() if line.split()]
        assert [name for name in told if name in {"snapshot", "overlap"}] == ["snapshot", "overlap"], "what was finished has been told"
        (last,) = errors.splitlines()
        return last


def test_a_run_that_is_told_to_end_leaves_no_process_and_is_interrupted(hub: Hub, tmp_path: Path) -> None:
    home = tmp_path / "home"
    for number in (signal.SIGTERM, signal.SIGHUP):
        last = told_to_end(hub, home, slow_recipe(tmp_path), number)
        assert last.startswith("interrupted at imatrix")
        assert last.endswith("; start the same command again and it goes on where it was")
        assert list((home / "working").iterdir()) == [], "no temporary files stay"

        listed = json.loads(sluice("status", "--json", **hub.environment(home)).stdout)
        assert [item["state"] for item in listed] == ["interrupted"]
        told = sluice("status", "1", **hub.environment(home))
        assert told.returncode == 1
        assert "interrupted at imatrix" in told.stdout
        assert "the same command again" in told.stdout
        assert "run 1: interrupted" in told.stdout
        document = json.loads(sluice("status", "1", "--json", **hub.environment(home)).stdout)
        assert (document["state"], document["stages"][-1]["name"], document["stages"][-1]["state"]) == ("interrupted", "imatrix", "interrupted")
