"""Files of one content are on the disk once, and a damaged one is nobody's."""

import os
from pathlib import Path

import pytest

from config.digests import file_sha256
from config.sharing import LEAST, share, take, unused

CONTENT = os.urandom(LEAST)


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    (tmp_path / "blobs").mkdir()
    return tmp_path / "blobs"


def written(path: Path, content: bytes = CONTENT) -> str:
    path.write_bytes(content)
    return file_sha256(path)


def test_the_second_file_of_a_content_becomes_the_first_one(tmp_path: Path, blobs: Path) -> None:
    for name in "abc":
        share(tmp_path / name, written(tmp_path / name), blobs)
    assert (tmp_path / "a").samefile(tmp_path / "b")
    assert (tmp_path / "a").stat().st_nlink == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "blobs", "c"], "nothing is left beside"
    share(tmp_path / "a", file_sha256(tmp_path / "a"), blobs)
    assert (tmp_path / "a").stat().st_nlink == 4
    assert unused(blobs) == []
    for name in "abc":
        (tmp_path / name).unlink()
    assert unused(blobs) == list(blobs.iterdir())


def test_what_is_kept_is_replaced_where_it_is_damaged(tmp_path: Path, blobs: Path) -> None:
    sha256 = written(tmp_path / "a")
    share(tmp_path / "a", sha256, blobs)
    with (tmp_path / "a").open("r+b") as file:
        file.write(b"damage")
    written(tmp_path / "b")
    share(tmp_path / "b", sha256, blobs)
    assert not (tmp_path / "b").samefile(tmp_path / "a")
    assert (tmp_path / "b").samefile(blobs / sha256)
    assert file_sha256(blobs / sha256) == sha256


def test_what_is_taken_is_looked_at(tmp_path: Path, blobs: Path) -> None:
    sha256 = written(tmp_path / "a")
    assert not take(tmp_path / "b", sha256, blobs)
    share(tmp_path / "a", sha256, blobs)
    assert take(tmp_path / "b", sha256, blobs)
    assert (tmp_path / "b").samefile(tmp_path / "a")
    (blobs / sha256).write_bytes(b"damage")
    assert not take(tmp_path / "c", sha256, blobs)
    assert not (tmp_path / "c").exists()
    assert not (blobs / sha256).exists()


def test_small_files_and_foreign_names_are_left_alone(tmp_path: Path, blobs: Path) -> None:
    share(tmp_path / "small", written(tmp_path / "small", b"x" * (LEAST - 1)), blobs)
    written(tmp_path / "a")
    share(tmp_path / "a", "../stray", blobs)
    assert list(blobs.iterdir()) == []
    assert not (tmp_path / "stray").exists()
    assert not take(tmp_path / "b", "../small", blobs)
    assert not (tmp_path / "b").exists()


def test_where_there_are_no_links_files_stay_their_own(tmp_path: Path) -> None:
    share(tmp_path / "a", written(tmp_path / "a"), tmp_path / "no such folder")
    assert (tmp_path / "a").read_bytes() == CONTENT
