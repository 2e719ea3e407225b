"""What a GGUF file computes with, told from what its header says about the model."""

from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter

from engines.gguf_numbers import digest


def written(path: Path, *, scale: float = 1.0, tokens: tuple[str, ...] = ("a", "b"), name: str = "Tiny", alignment: int | None = None, **said: str) -> Path:
    """A GGUF file of one matrix."""
    file = GGUFWriter(path, "llama")
    if alignment is not None:
        file.add_custom_alignment(alignment)
    file.add_name(name)
    file.add_token_list(list(tokens))
    file.add_uint32("llama.context_length", 512)
    for key, value in said.items():
        file.add_string(key.replace("__", "."), value)
    file.add_array("general.tags", ["one", said.get("general__license", "two")])
    file.add_tensor("blk.0.weight", np.arange(64, dtype=np.float32).reshape(8, 8) * scale)
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()
    return path


def test_what_describes_does_not_count(tmp_path: Path) -> None:
    plain = digest(written(tmp_path / "plain.gguf"))
    for number, said in enumerate(({"tokenizer__chat_template": "{{ messages }}"}, {"general__license": "mit"}, {"general__sampling__temp": "0.7"})):
        assert digest(written(tmp_path / f"{number}.gguf", **said)) == plain


@pytest.mark.parametrize(
    "change", [{"scale": 2.0}, {"tokens": ("a", "c")}, {"name": "phi-3"}, {"tokenizer__ggml__pre": "other"}, {"llama__rope__scaling__type": "yarn"}]
)
def test_what_computes_does(tmp_path: Path, change: dict[str, object]) -> None:
    assert digest(written(tmp_path / "a.gguf", **change)) != digest(written(tmp_path / "b.gguf"))


def test_another_alignment_is_minded(tmp_path: Path) -> None:
    wide = [digest(written(tmp_path / f"{size}.gguf", alignment=256, tokenizer__chat_template="x" * size)) for size in (5, 1000)]
    assert wide[0] == wide[1]


@pytest.mark.parametrize("damage", [b"", b"GGUF", b"GGUF" + b"\xff" * 100, b"no model at all" * 10])
def test_what_is_no_gguf_file_is_told(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "bad.gguf").write_bytes(damage)
    with pytest.raises(ValueError, match=r"bad\.gguf|empty file"):
        digest(tmp_path / "bad.gguf")
