"""A GGUF file that is given instead of a model in the transformers form."""

from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter

from builders import given, quantize
from config.errors import UpstreamError


def test_a_16_bit_file_is_taken_as_it_is(gguf: Path, tmp_path: Path) -> None:
    found = given.take(tmp_path, gguf=gguf, name="tiny")
    assert found == {"file": "tiny.gguf", "bytes": gguf.stat().st_size, "parameters": 3_672_320}
    assert (tmp_path / "tiny.gguf").samefile(gguf) or (tmp_path / "tiny.gguf").read_bytes() == gguf.read_bytes()


def test_what_cannot_be_planned_is_refused(gguf: Path, imatrix: Path, tmp_path: Path) -> None:
    small = tmp_path / str(quantize.quantize(tmp_path, gguf=gguf, imatrix=imatrix, type="Q4_0", name="m", threads=1)["file"])
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"not a GGUF file")
    part, empty = tmp_path / "part.gguf", tmp_path / "empty.gguf"
    for path, count in ((part, 2), (empty, 1)):
        writer = GGUFWriter(path, "llama")
        writer.add_uint16("split.count", count)
        writer.add_tensor("output_norm.weight", np.ones(8, dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    for path, words in ((small, "quantized already: token_embd.weight is Q"), (broken, "cannot be read"), (part, "several parts"), (empty, "no matrix")):
        with pytest.raises(UpstreamError, match=words):
            given.take(tmp_path, gguf=path, name="m")
        assert not (tmp_path / "m.gguf").exists()
