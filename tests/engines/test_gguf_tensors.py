import time
from pathlib import Path

import gguf
import numpy as np
import pytest

from engines import gguf_tensors


def written(path: Path, *, tokens: int, endianess: gguf.GGUFEndian = gguf.GGUFEndian.LITTLE) -> Path:
    writer = gguf.GGUFWriter(path, "llama", endianess=endianess)
    writer.add_array("tokenizer.ggml.tokens", [f"tökén {number}" for number in range(tokens)])
    writer.add_array("tokenizer.ggml.scores", [float(number) for number in range(tokens)])
    writer.add_array("tokenizer.ggml.token_type", list(range(tokens)))
    writer.add_array("rope.dimension_sections", [1, 2, 3])
    writer.add_custom_alignment(64)
    rng = np.random.default_rng(0)
    writer.add_tensor("token_embd.weight", rng.standard_normal((8, 32), dtype=np.float32))
    writer.add_tensor("output_norm.weight", rng.standard_normal(32, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("tokens", [3, gguf_tensors.FEW, gguf_tensors.FEW + 1, 5000])
@pytest.mark.parametrize("endianess", [gguf.GGUFEndian.LITTLE, gguf.GGUFEndian.BIG])
def test_tensors_are_those_of_gguf_s_reader(tmp_path: Path, tokens: int, endianess: gguf.GGUFEndian) -> None:
    path = written(tmp_path / "a.gguf", tokens=tokens, endianess=endianess)
    found, expected = gguf_tensors.read(path), gguf.GGUFReader(path).tensors
    assert [(one.name, one.shape.tolist(), one.tensor_type, one.data_offset) for one in found] == [
        (one.name, one.shape.tolist(), one.tensor_type, one.data_offset) for one in expected
    ]
    assert all(np.array_equal(one.data, other.data) for one, other in zip(found, expected, strict=True))


def test_short_arrays_are_read_and_long_ones_passed_over(tmp_path: Path) -> None:
    reader = gguf_tensors.Reader(written(tmp_path / "a.gguf", tokens=1000))
    assert reader.fields["rope.dimension_sections"].contents() == [1, 2, 3]
    assert reader.fields["tokenizer.ggml.tokens"].contents() == []
    assert reader.alignment == 64


def test_a_file_that_ends_in_its_vocabulary_is_an_error(tmp_path: Path) -> None:
    whole = written(tmp_path / "a.gguf", tokens=1000).read_bytes()
    for at in (200, 2000, 20_000):
        (tmp_path / "b.gguf").write_bytes(whole[:at])
        with pytest.raises((ValueError, IndexError)):
            gguf_tensors.read(tmp_path / "b.gguf")


def test_a_vocabulary_of_a_real_size_takes_no_time(tmp_path: Path) -> None:
    path = written(tmp_path / "a.gguf", tokens=100_000)
    started = time.process_time()
    gguf_tensors.read(path)
    quick = time.process_time() - started
    started = time.process_time()
    gguf.GGUFReader(path)
    assert quick < (time.process_time() - started) / 5
