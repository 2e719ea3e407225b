"""The bench of what is read before the first file, on little text, against the build that it is."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench import passes


def used(stage: str, *, seconds: float, memory: int) -> passes.Used:
    return passes.Used(stage=stage, seconds=seconds, processor=2 * seconds, memory=memory, result={})


def test_ratios_are_of_all_stages_together_and_memory_of_the_largest() -> None:
    before = [used("imatrix", seconds=1, memory=5), used("sensitivity", seconds=5, memory=40), used("hessians", seconds=4, memory=10)]
    now = [used("imatrix", seconds=1, memory=5), used("sensitivity", seconds=1, memory=10)]
    assert [line.split()[-3] for line in passes.ratios({"old": before, "now": now})] == ["0.200", "0.200", "0.250"]
    assert passes.ratios({"now": now}) == []


def test_what_fails_is_told(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="builders.calibrate:imatrix of .* ended with 1"):
        passes.call(passes.ROOT, "imatrix", "builders.calibrate:imatrix", tmp_path, {"nothing": 1})


@pytest.mark.slow
def test_both_builds_read_the_same_text(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    @contextmanager
    def same(revision: str) -> Iterator[Path]:
        yield passes.ROOT

    monkeypatch.setattr(passes, "checked_out", same)
    monkeypatch.setattr("sys.argv", ["passes", "--against", "before", "--models", "bundled", "--tokens", "1024", "--context", "256", "--threads", "1"])
    passes.main()
    said = capsys.readouterr().out
    assert said.count("sensitivity") == 2
    (processor,) = [line for line in said.splitlines() if "processor time" in line]
    assert 0.5 < float(processor.split()[-3]) < 2
