"""Logs of stages as they are read and followed."""

from pathlib import Path

import pytest

from config.settings import Settings
from service.execution import log
from service.execution.log import Log
from service.runs import logs
from service.store import Store
from tests.service.helpers import queue_run


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "HEAD", 1000)
    monkeypatch.setattr(log, "TAIL", 4000)


def line(number: int) -> bytes:
    return b"line %d of the log\n" % number


@pytest.mark.usefixtures("small")
def test_a_log_that_is_cut_while_it_is_followed_is_followed_on(file_store: Store, tmp_path: Path) -> None:
    settings, run = Settings(home=tmp_path), queue_run(file_store).id
    file_store.lease("worker", seconds=60)
    stage = file_store.stage_started(run, "convert", "k" * 64)
    heard = ""
    with Log(tmp_path / "logs" / f"run-{run}" / "convert.log") as writing:
        following = logs.growing(file_store, settings, run, "convert", last=65_536)
        for number in range(3000):
            writing.write(line(number))
            if number % 50 == 0:
                heard += next(following) or ""
        assert writing.left_out > 0
        file_store.stage_finished(stage, state="done", seconds=1.0)
        heard += "".join(text or "" for text in following)
    assert heard == b"".join(map(line, range(3000))).decode()


@pytest.mark.usefixtures("small")
def test_who_comes_late_is_told_what_is_left_out(file_store: Store, tmp_path: Path) -> None:
    settings, path = Settings(home=tmp_path), tmp_path / "stage.log"
    with Log(path) as writing:
        for number in range(3000):
            writing.write(line(number))
    whole = logs.Reader(path, settings, last=10**9).read(ended=True)
    assert whole.startswith("line 0 of the log\n")
    assert "bytes are left out here]\n" in whole
    assert whole.endswith("line 2999 of the log\n")
    assert logs.Reader(path, settings, last=45).read(ended=True) == "line 2998 of the log\nline 2999 of the log\n"
