"""Who holds a lease, whatever happens to the clock and whatever other machines are called."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from service.store import worker_name
from service.store.owner import is_gone


def test_a_process_lives_on_when_somebody_sets_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    me = worker_name()
    before = psutil.boot_time()
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: before + 3600.0)  # what the kernel tells once the clock was put forward by an hour
    assert worker_name() == me
    assert not is_gone(me)


def test_a_process_that_ended_is_gone_and_so_is_one_whose_number_another_one_has() -> None:
    ended = subprocess.run([sys.executable, "-c", "from service.store import worker_name; print(worker_name())"], capture_output=True, text=True, check=True)
    assert is_gone(ended.stdout.strip())
    place, _, began = worker_name().rpartition("/")
    assert not is_gone(f"{place}/{began}")
    assert is_gone(f"{place}/{int(began) - 1}")


def test_of_another_machine_of_that_name_nothing_is_known() -> None:
    host, boot, namespace, *process = worker_name().split("/")
    assert process[0] == str(os.getpid())
    assert not is_gone("/".join([host, "another", namespace, "1", "1"]))
    assert boot != "another"


def test_the_name_of_a_program_may_hold_blanks_and_brackets(tmp_path: Path) -> None:
    program = tmp_path / "odd) R 1 (name"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "60"]) as process:
        place = worker_name().rpartition("/")[0].rpartition("/")[0]
        assert is_gone(f"{place}/{process.pid}/1")
        process.kill()
