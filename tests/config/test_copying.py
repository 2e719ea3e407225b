import hashlib
import os
from pathlib import Path

import pytest

from config.copying import PIECE, copy, hashed


def test_a_copy_holds_the_same_and_is_another_file(tmp_path: Path) -> None:
    content, heard = os.urandom(PIECE + 1000), list[int]()
    (tmp_path / "source").write_bytes(content)
    assert copy(tmp_path / "source", tmp_path / "target", heard.append) == hashlib.sha256(content).hexdigest()
    assert sum(heard) == len(content)
    with (tmp_path / "source").open("r+b") as file:  # in place, as tools do that edit a GGUF file's header
        file.write(b"edited")
    assert (tmp_path / "target").read_bytes() == content
    assert hashed(tmp_path / "target") == hashlib.sha256(content).hexdigest() != hashed(tmp_path / "source")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    for name in ("source", "target"):
        (tmp_path / name).write_text(name)
    with pytest.raises(FileExistsError):
        copy(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").read_text() == "target"
