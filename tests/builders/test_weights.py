"""Safetensors headers: sound ones are read, malformed ones never reach a library."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from builders.weights import LARGEST_HEADER, parameters, read_header, weight_files
from config.errors import UpstreamError
from tests.builders.conftest import DEMO


def written(path: Path, header: Any, data: bytes = b"", *, length: int | None = None) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + data)
    return path


def entry(dtype: str, shape: list[Any], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_the_bundled_model() -> None:
    tensors = {tensor.name: tensor for tensor in read_header(DEMO / "model.safetensors")}
    embedding = tensors["model.embed_tokens.weight"]
    assert (embedding.dtype, embedding.shape, embedding.bytes) == ("BF16", (2048, 256), 2048 * 256 * 2)
    assert parameters(weight_files(DEMO)) == sum(tensor.elements for tensor in tensors.values()) == 3_672_320


def test_what_the_library_writes_is_read(tmp_path: Path) -> None:
    arrays = {"scalar": np.array(1, np.float32), "empty": np.zeros((0, 3), np.int8), "matrix": np.ones((2, 3), np.float16)}
    safetensors.numpy.save_file(arrays, tmp_path / "x.safetensors", metadata={"format": "pt"})
    assert {tensor.name: tensor.shape for tensor in read_header(tmp_path / "x.safetensors")} == {"scalar": (), "empty": (0, 3), "matrix": (2, 3)}


@pytest.mark.parametrize(("type", "bits"), [("F4", 4), ("F6_E2M3", 6), ("F6_E3M2", 6), ("F8_E4M3FNUZ", 8), ("F8_E5M2FNUZ", 8), ("F8_E8M0", 8), ("C64", 64)])
def test_every_type_of_the_library_is_read(tmp_path: Path, type: str, bits: int) -> None:
    path = written(tmp_path / "x.safetensors", {"a": entry(type, [2, 4], 0, bits)}, b"\0" * bits)
    with safetensors.safe_open(path, framework="np") as opened:
        assert opened.get_slice("a").get_dtype() == type, "the library takes it for sound as well"
    (tensor,) = read_header(path)
    assert (tensor.dtype, tensor.shape, tensor.bytes) == (type, (2, 4), bits)


@pytest.mark.parametrize(
    ("header", "data", "length", "said"),
    [
        (b"", b"", None, "claims 0 bytes"),
        ({}, b"", 1 << 62, "claims"),
        ({}, b"", LARGEST_HEADER + 1, "claims"),
        ({}, b"", 3, "claims 3 bytes"),
        (b"{nope", b"", None, "not JSON"),
        (b"\xff\xff", b"", None, "not JSON"),
        (b"[" * 100_000, b"", None, "not JSON"),
        ([1, 2], b"", None, "not a JSON object"),
        ({"a": 7}, b"", None, "known type"),
        ({"a": entry("F4_MADE_UP", [1], 0, 4)}, b"1234", None, "known type"),
        ({"a": entry("F32", [1.0], 0, 4)}, b"1234", None, "known type"),
        ({"a": entry("F32", [-1], 0, 4)}, b"1234", None, "known type"),
        ({"a": entry("F32", [True], 0, 4)}, b"1234", None, "known type"),
        ({"a": entry("F32", [1], -4, 0)}, b"1234", None, "known type"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}, b"1234", None, "known type"),
        ({"a": entry("F32", [2], 0, 4)}, b"1234", None, "do not fit its shape"),
        ({"a": entry("F32", [1 << 40, 1 << 40], 0, 4)}, b"1234", None, "do not fit its shape"),
        ({"a": entry("F32", [1], 4, 0)}, b"1234", None, "do not fit its shape"),
        ({"a": entry("F32", [1], 0, 4), "b": entry("F32", [1], 0, 4)}, b"1234", None, "not where the data before it ends"),
        ({"a": entry("F32", [1], 0, 4), "b": entry("F32", [1], 8, 12)}, b"0" * 12, None, "not where the data before it ends"),
        ({"a": entry("F32", [1], 0, 4)}, b"", None, "the file holds 0"),
        ({"a": entry("F32", [1], 0, 4)}, b"1234hidden", None, "the file holds 10"),
    ],
)
def test_malformed_files_are_refused(tmp_path: Path, header: Any, data: bytes, length: int | None, said: str) -> None:
    with pytest.raises(UpstreamError, match=said):
        read_header(written(tmp_path / "x.safetensors", header, data, length=length))


@pytest.mark.parametrize("size", [0, 7, 8])
def test_files_too_short_for_a_header(tmp_path: Path, size: int) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"\0" * size)
    with pytest.raises(UpstreamError, match="not a sound safetensors file"):
        read_header(tmp_path / "x.safetensors")
