"""Two GGUF files with the same tensors, or not."""

from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter

from builders import twins
from engines import gguf_tensors

VALUES = np.arange(64, dtype=np.float32).reshape(2, 32)


def write(path: Path, type: int = 1, **tensors: np.ndarray) -> Path:
    writer = GGUFWriter(path, "llama")
    writer.add_file_type(type)
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("tensors", "same"),
    [
        ({"a": VALUES, "b": VALUES[:1]}, True),
        ({"b": VALUES[:1], "a": VALUES}, True),
        ({"a": VALUES + 1, "b": VALUES[:1]}, False),
        ({"a": VALUES, "b": VALUES[1:]}, False),
        ({"a": VALUES}, False),
        ({"a": VALUES, "b": VALUES[:1], "c": VALUES}, False),
        ({"a": VALUES.astype(np.float16), "b": VALUES[:1]}, False),
    ],
)
def test_only_the_tensors_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tensors: dict[str, np.ndarray], same: bool) -> None:
    monkeypatch.setattr(gguf_tensors, "CHUNK", 100)  # several pieces, the last one short
    one = write(tmp_path / "one.gguf", a=VALUES, b=VALUES[:1])
    other = write(tmp_path / "other.gguf", type=7, **tensors)
    assert twins.compare(tmp_path, one=one, other=other) == {"same": same}
