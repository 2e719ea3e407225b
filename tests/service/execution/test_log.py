"""Logs of stages that print much: beginning and end stay, what is left out is said, and whoever follows reads on."""

import errno
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from config.errors import StageError
from service.execution import log
from service.execution.log import Log, length, printed, since
from service.execution.process import Limits, run_apart

GAP = re.compile(rb"\n\[ *([\d,]+) bytes are left out here\]\n")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> int:
    """Logs that are cut soon; the bytes that a file has at most."""
    monkeypatch.setattr(log, "HEAD", 1000)
    monkeypatch.setattr(log, "TAIL", 4000)
    monkeypatch.setattr(log, "BREATH", 0.0)
    return 1000 + 2 * 4000 + 100 + log._PIECE


def lines(count: int, start: int = 0) -> bytes:
    return b"".join(b"line %d\n" % number for number in range(start, start + count))


def test_what_is_short_stays_as_it_is(small: int, tmp_path: Path) -> None:
    with printed(tmp_path / "a" / "stage.log") as stream:
        stream.write(lines(500))
    assert (tmp_path / "a" / "stage.log").read_bytes() == lines(500)


def test_of_what_is_long_beginning_and_end_stay_and_it_is_said_what_is_left_out(small: int, tmp_path: Path) -> None:
    path, whole, most = tmp_path / "stage.log", lines(20_000), 0
    with Log(path) as writing:
        for begin in range(0, len(whole), 777):
            writing.write(whole[begin : begin + 777])
            most = max(most, path.stat().st_size)
    assert most < small
    found = path.read_bytes()
    gap = GAP.search(found)
    assert gap is not None
    head, tail, left_out = found[: gap.start()], found[gap.end() :], int(gap[1].replace(b",", b""))
    assert gap.start() == log.HEAD
    assert whole.startswith(head.rstrip(b" "))
    assert head.rstrip(b" ").endswith(b"\n"), "the beginning ends with a whole line"
    assert whole.endswith(b"\n" + tail)
    assert len(tail) > 0.9 * log.TAIL
    assert len(head) + left_out + len(tail) == len(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stage.log"]


def test_a_line_without_end_is_cut_too(small: int, tmp_path: Path) -> None:
    with Log(tmp_path / "stage.log") as writing:
        for _ in range(100):
            writing.write(b"x" * 1000)
    assert (tmp_path / "stage.log").stat().st_size < small
    with (tmp_path / "stage.log").open("rb") as file:
        assert length(file) == 100_000


@pytest.mark.parametrize("step", [1, 100, 6000, 50_000])
def test_who_follows_reads_on_across_cuts(small: int, tmp_path: Path, step: int) -> None:
    path, whole = tmp_path / "stage.log", lines(8000)
    read, place = b"", 0
    with Log(path) as writing:
        for number, begin in enumerate(range(0, len(whole), 500)):
            writing.write(whole[begin : begin + 500])
            if (number + 1) % max(1, step // 500) == 0:
                with path.open("rb") as file:
                    found, place = since(file, place)
                    assert place == length(file) == begin + len(whole[begin : begin + 500])
                read += found
        with path.open("rb") as file:
            read += since(file, place)[0]
    assert read.startswith(lines(100))
    assert read.endswith(lines(100, 7900))
    told = [line for line in read.split(b"\n") if re.fullmatch(rb"line \d+", line)]
    numbers = [int(line.split()[1]) for line in told]
    assert numbers == sorted(set(numbers)), "nothing comes twice, or in another order"
    if step <= 100:
        assert read == whole
    if step == 50_000:
        assert GAP.search(read), "what was missed is said"


def test_a_stage_that_prints_without_end_does_not_fill_the_disk(small: int, tmp_path: Path) -> None:
    limits = Limits(seconds=3, memory_bytes=None, threads=1)
    for name in ("files", "tmp"):
        (tmp_path / name).mkdir()
    with pytest.raises(StageError, match="was stopped after"):
        run_apart("tests.service.stage_functions:babble", tmp_path, {}, {}, limits=limits, log=tmp_path / "logs" / "stage.log")
    kept = (tmp_path / "logs" / "stage.log").read_bytes()
    assert len(kept) < small
    gap = GAP.search(kept)
    assert gap is not None
    assert int(gap[1].replace(b",", b"")) > 1_000_000, "it printed much more"
    assert kept.startswith(b"0 again and again\n")


def test_who_leaves_the_stage_and_keeps_its_output_open_holds_nobody_up(tmp_path: Path) -> None:
    path, code = tmp_path / "stage.log", "import time, sys\nprint('here', flush=True)\ntime.sleep(60)"
    with printed(path) as stream:
        left = subprocess.Popen([sys.executable, "-c", code], stdout=stream, start_new_session=True)
        while not path.read_bytes():
            time.sleep(0.02)
        began = time.monotonic()
    try:
        assert time.monotonic() - began < 5
        assert path.read_bytes() == b"here\n"
    finally:
        left.kill()
        left.wait()


def test_who_leaves_the_stage_and_prints_without_end_is_not_listened_to(tmp_path: Path) -> None:
    with printed(tmp_path / "stage.log") as stream:
        left = subprocess.Popen([sys.executable, "-c", "while True: print('still here')"], stdout=stream, stderr=subprocess.DEVNULL, start_new_session=True)
        time.sleep(0.5)
        began = time.monotonic()
    assert time.monotonic() - began < 10
    assert left.wait(10) != 0, "nobody takes what it prints"


def test_a_full_disk_does_not_stop_who_prints(tmp_path: Path) -> None:
    full = tmp_path / "full.log"
    full.symlink_to("/dev/full")
    with Log(full) as writing:
        writing.write(b"lost")


def test_a_log_that_cannot_be_cut_goes_on(small: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, opened = tmp_path / "stage.log", Path.open

    def refused(self: Path, mode: str = "r", *given: Any, **more: Any) -> Any:
        if mode == "ab":
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return opened(self, mode, *given, **more)

    with Log(path) as writing:
        monkeypatch.setattr(Path, "open", refused)
        writing.write(lines(2000))
        writing.write(b"afterwards\n")
        monkeypatch.undo()
    assert path.read_bytes() == lines(2000) + b"afterwards\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stage.log"]
