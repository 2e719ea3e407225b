"""llama.cpp's table of a file's tensors against gguf's own reader."""

from pathlib import Path

import pytest
from gguf import GGUFReader

from builders import convert
from engines import gguf_table, tools

MODEL = Path(__file__).parents[2] / "demo" / "model"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The bundled model in 16 bits and in a mix of types."""
    folder = tmp_path_factory.mktemp("gguf")
    whole = folder / str(convert.convert(folder, model=MODEL, name="tiny")["file"])
    tools.run("llama-quantize", whole, folder / "mix.gguf", "Q4_K_M", "1")
    return [whole, folder / "mix.gguf"]


def test_it_says_what_gguf_s_reader_says(files: list[Path]) -> None:
    for file in files:
        reader, table = GGUFReader(file), gguf_table.read(file)
        assert [(entry.name, entry.type, entry.values, entry.bytes, entry.dimensions > 1, entry.columns) for entry in table.entries] == [
            (tensor.name, tensor.tensor_type.name, int(tensor.n_elements), int(tensor.n_bytes), len(tensor.shape) > 1, int(tensor.shape[0]))
            for tensor in reader.tensors
        ]
        assert table.header_bytes == reader.data_offset
    assert {entry.type for entry in gguf_table.read(files[1]).entries} >= {"Q4_K", "Q6_K", "F32"}


def test_what_is_damaged_is_refused(files: list[Path], tmp_path: Path) -> None:
    content, damaged = files[1].read_bytes(), tmp_path / "damaged.gguf"
    for part in (b"", content[:20], content[:5000], content[:-100], b"GGML" + content[4:]):
        damaged.write_bytes(part)
        with pytest.raises(ValueError, match=r"damaged\.gguf"):
            gguf_table.read(damaged)
    with pytest.raises(ValueError, match="nowhere"):
        gguf_table.read(tmp_path / "nowhere.gguf")
