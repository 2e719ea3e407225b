"""The whole header of a GGUF file from its first bytes, against gguf's own reader, and what is no such header."""

from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader

from engines import gguf_header
from tests import ggufs

NUMBERS = {"general__a": 7, "general__b": 1.5, "general__c": True, "general__d": ["ä", "𝄞", ""], "general__e": [1, 2, 3], "general__f": "text"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    return ggufs.rewritten(ggufs.with_vocabulary("llama-spm", "llama", folder / "plain.gguf"), folder / "whole.gguf", **NUMBERS)


def test_it_is_what_gguf_s_reader_reads(whole: Path) -> None:
    header, reader = gguf_header.read(whole), GGUFReader(whole)
    expected = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert {key: pytest.approx(value) if isinstance(value, float) else value for key, value in expected.items()} == header.fields
    assert header.architecture == "llama"
    assert (header.of("block_count"), header.of("nothing", "usual")) == (ggufs.LAYERS, "usual")
    assert [entry.name for entry in header.tensors] == [tensor.name for tensor in reader.tensors]
    for entry, tensor in zip(header.tensors, reader.tensors, strict=True):
        bits = gguf_header.mapped(whole, entry)
        assert (entry.type, list(entry.shape)) == (tensor.tensor_type.name, tensor.shape.tolist()[::-1])
        assert (entry.bytes, entry.shape) == (bits.nbytes, bits.shape)
        assert np.array_equal(bits.reshape(-1).view(np.uint8), tensor.data.reshape(-1).view(np.uint8))


def test_a_beginning_is_enough_for_the_fields_in_it_and_says_when_it_is_not(whole: Path) -> None:
    data = whole.read_bytes()
    end = gguf_header.read(whole).tensors[0].at
    assert gguf_header.parse(data[:end]).tensors == gguf_header.read(whole).tensors
    with pytest.raises(gguf_header.Truncated):
        gguf_header.parse(data[:1000])
    few = gguf_header.fields(data[:1000])
    assert few["general.name"] == "miniature"
    assert len(few) < len(gguf_header.read(whole).fields)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "it is empty"),
        (b"GGML" + bytes(20), "does not begin as a GGUF file does"),
        (b"GGUF" + (1).to_bytes(4, "little") + bytes(16), "of version 1"),
        (b"GGUF" + (3).to_bytes(4, "little") + bytes(8) + (1).to_bytes(8, "little"), "ends within its header"),
        (b"GGUF" + (3).to_bytes(4, "little") + bytes(8) + (2**60).to_bytes(8, "little") + bytes(64), "ends within its header"),
        (b"GGUF" + (3).to_bytes(4, "little") + bytes(8) + (1).to_bytes(8, "little") + bytes(8) + (77).to_bytes(4, "little"), "unknown type 77"),
    ],
)
def test_what_is_no_header_is_said(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "wrong.gguf").write_bytes(data)
    with pytest.raises(ValueError, match=said):
        gguf_header.read(tmp_path / "wrong.gguf")


def test_a_file_that_was_cut_off_is_told(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.gguf").write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(ValueError, match="and its tensors end at"):
        gguf_header.read(tmp_path / "cut.gguf")
    with pytest.raises(ValueError, match="greater than file size"):
        gguf_header.mapped(tmp_path / "cut.gguf", gguf_header.read(whole).tensors[-1])


def test_parts_are_one_model_when_all_are_there(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "whole.gguf").write_bytes(whole.read_bytes())
    parts = ggufs.split(tmp_path)
    assert len(parts) > 1
    found = {name: gguf_header.read(tmp_path / name) for name in parts}
    joined = gguf_header.joined(found)
    assert {entry.name for entry in joined.tensors} == {entry.name for entry in gguf_header.read(whole).tensors}
    assert {entry.file for entry in joined.tensors} == set(parts)
    assert joined.fields["general.d"] == NUMBERS["general__d"]
    with pytest.raises(ValueError, match="parts, and there are 1"):
        gguf_header.joined({parts[0]: found[parts[0]]})
    with pytest.raises(ValueError, match="parts"):
        gguf_header.joined(dict(reversed(found.items())))
