"""Whatever a program makes of a full disk, it is told as one; and nothing else is taken for one."""

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from config.errors import Damaged, HubError, HubUnavailable, MeasurementError, NoSpace, PublishConflict, SluiceError, StageError, ToolError
from service.execution.space import FULL, with_space

NO_SPACE = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def disk(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=free))


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(NO_SPACE, id="the system's own words"),
        pytest.param(OSError(errno.EDQUOT, "Disk quota exceeded"), id="a quota"),
        pytest.param(StageError(f"The stage convert failed: OSError: {NO_SPACE}"), id="of a stage"),
        pytest.param(HubError(f"model.safetensors could not be fetched: {NO_SPACE}"), id="of a download"),
    ],
)
def test_what_says_so_is_a_full_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception) -> None:
    disk(monkeypatch, 10 * FULL)  # what failed has been removed since
    with pytest.raises(NoSpace) as caught, with_space(tmp_path, "convert"):
        raise error
    assert str(caught.value) == (
        f"The disk of {tmp_path} is full (40.0 MB are free), so convert could not be done. Free some space (`sluice prune` throws away what nobody needs), "
        "or set `home` to a folder on a larger disk, then run it again: it goes on where it was."
    )
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [ToolError("basic_ios::clear: iostream error"), StageError("it ended with exit code 1"), MeasurementError("no answer")])
def test_a_program_that_fails_on_a_full_disk_failed_by_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: SluiceError) -> None:
    disk(monkeypatch, FULL - 1)
    with pytest.raises(NoSpace), with_space(tmp_path, "convert"):
        raise error
    disk(monkeypatch, FULL)
    with pytest.raises(type(error)) as caught, with_space(tmp_path, "convert"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("error", [PublishConflict("theirs"), HubUnavailable("away"), HubError("no"), OSError(errno.EACCES, "no")])
def test_what_has_nothing_to_do_with_a_disk_stays_what_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception) -> None:
    disk(monkeypatch, 0)
    with pytest.raises(type(error)) as caught, with_space(tmp_path, "publish"):
        raise error
    assert caught.value is error


def test_a_damaged_file_stays_one_where_there_is_space(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    disk(monkeypatch, FULL)
    with pytest.raises(Damaged), with_space(tmp_path, "publish"):
        raise Damaged("other bytes", tmp_path / "file")


def test_a_full_disk_is_told_once(tmp_path: Path) -> None:
    with pytest.raises(NoSpace, match="so inner could not be done"), with_space(tmp_path, "outer"), with_space(tmp_path, "inner"):
        raise NO_SPACE
