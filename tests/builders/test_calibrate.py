"""The importance matrix: which text it is made from, and that it is whole and the same each time."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader

from builders import calibrate
from config.digests import file_sha256
from config.errors import ConfigurationError, MeasurementError
from engines import hf
from tests.builders.conftest import CALIBRATION, DATA, DEMO


def lines(path: Path, *conversations: Any) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in conversations))
    return path


HELLO = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}


def test_every_matrix_of_the_blocks_has_data(imatrix: Path) -> None:
    tensors = {tensor.name: np.asarray(tensor.data) for tensor in GGUFReader(imatrix).tensors}
    assert len(tensors) == 2 * 28
    assert all(np.isfinite(data).all() and data.sum() > 0 for data in tensors.values())


def test_the_file_holds_no_paths(imatrix: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert GGUFReader(imatrix).fields["imatrix.datasets"].contents() == ["calibration.txt"]
    assert str(tmp_path_factory.getbasetemp()).encode() not in imatrix.read_bytes()


def test_the_same_again_gives_the_same_bytes(fixed: Path, gguf: Path, imatrix: Path, tmp_path: Path) -> None:
    result = calibrate.imatrix(tmp_path, model=fixed, gguf=gguf, **CALIBRATION)
    assert result == {"file": "imatrix.gguf", "tokens": 4096, "chunks": 16}
    assert file_sha256(tmp_path / "imatrix.gguf") == file_sha256(imatrix)
    assert [path.name for path in tmp_path.iterdir()] == ["imatrix.gguf"]


def test_conversations_are_rendered_in_the_models_template_without_bos(fixed: Path, tmp_path: Path) -> None:
    path = lines(tmp_path / "chat.jsonl", HELLO, "")
    wanted = ["<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n"]
    assert list(calibrate.conversations(path, hf.speaking(hf.load_tokenizer(fixed)))) == wanted
    assert list(calibrate.conversations(path, hf.speaking(hf.load_tokenizer(DEMO)))) == wanted, "a template that writes BOS gives the same text"


@pytest.mark.parametrize("wrong", ["{", "7", "{}", '{"messages": 7}', '{"messages": ["Hi"]}'])
def test_a_line_that_is_no_conversation_is_named(fixed: Path, tmp_path: Path, wrong: str) -> None:
    with pytest.raises((ConfigurationError, MeasurementError), match="line 2"):
        list(calibrate.conversations(lines(tmp_path / "chat.jsonl", HELLO, wrong), hf.speaking(hf.load_tokenizer(fixed))))


def test_paragraphs_join_to_the_text(tmp_path: Path) -> None:
    path = tmp_path / "plain.txt"
    path.write_text("one\ntwo\n\nthree\n\n\nfour")
    assert calibrate.paragraphs(path) == ["one\ntwo\n\n", "three\n\n", "\nfour\n"]
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        calibrate.paragraphs(path)


def test_every_source_gives_the_same_share(fixed: Path) -> None:
    by = hf.speaking(hf.load_tokenizer(fixed))
    sources = [["The sky is blue.\n"] * 100, ["Water is wet.\n"] * 40]
    everything = calibrate.chosen(sources, by, 10**6)
    half = calibrate.chosen(sources, by, sum(count for _, count in everything) // 2)
    assert [piece for piece, _ in everything] == sources[0] + sources[1]
    assert [sum(piece == source[0] for piece, _ in half) for source in sources] == [50, 20]


def test_too_little_text_or_too_few_tokens(fixed: Path, gguf: Path, tmp_path: Path) -> None:
    path = lines(tmp_path / "chat.jsonl", HELLO)
    with pytest.raises(MeasurementError, match="Name more text"):
        calibrate.imatrix(tmp_path, model=fixed, gguf=gguf, chat=[path], plain=[], tokens=4096, context=256, threads=1)
    with pytest.raises(ConfigurationError, match=r"Raise `calibration\.tokens`"):
        calibrate.imatrix(tmp_path, model=fixed, gguf=gguf, chat=[DATA / "calibration.jsonl"], plain=[], tokens=500, context=256, threads=1)
