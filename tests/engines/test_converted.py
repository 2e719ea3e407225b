"""The folder that llama.cpp's converter is given: links to all files but the card, and the class by which it knows Phi-4's vocabulary."""

import json
from pathlib import Path
from typing import Any

import pytest

from engines import converted

BYTES = {"type": "BPE", "vocab": {}, "merges": []}


def linked(
    tmp_path: Path, *, kind: str, vocabulary: Any, settings: str | None = '{"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 7}'
) -> Path:
    """What the converter is given of a model of that type."""
    model, folder = tmp_path / "model", tmp_path / "folder"
    model.mkdir()
    folder.mkdir()
    (model / "config.json").write_text(json.dumps({"model_type": kind}), encoding="utf-8")
    (model / "tokenizer.json").write_text(json.dumps({"model": vocabulary}), encoding="utf-8")
    (model / "README.md").write_text("A card", encoding="utf-8")
    if settings is not None:
        (model / "tokenizer_config.json").write_text(settings, encoding="utf-8")
    converted.link(model, folder)
    return folder


@pytest.mark.parametrize("kind", ["phi3", "phimoe"])
def test_a_vocabulary_of_bytes_is_told_by_the_class_that_the_converter_knows(kind: str, tmp_path: Path) -> None:
    folder = linked(tmp_path, kind=kind, vocabulary=BYTES)
    found = json.loads((folder / "tokenizer_config.json").read_bytes())
    assert found == {"tokenizer_class": "GPT2Tokenizer", "model_max_length": 7}
    assert json.loads((tmp_path / "model" / "tokenizer_config.json").read_bytes())["tokenizer_class"] == "PreTrainedTokenizerFast", "the model's own stays"
    assert not (folder / "README.md").exists()


def test_without_settings_there_are_some(tmp_path: Path) -> None:
    folder = linked(tmp_path, kind="phi3", vocabulary=BYTES, settings=None)
    assert json.loads((folder / "tokenizer_config.json").read_bytes()) == {"tokenizer_class": "GPT2Tokenizer"}


@pytest.mark.parametrize(
    ("kind", "vocabulary", "settings"),
    [
        ("llama", BYTES, "{}"),
        ("phi3", BYTES | {"byte_fallback": True}, "{}"),
        ("phi3", None, "{}"),
        ("phi3", BYTES, '{"tokenizer_class": "GPT2Tokenizer"}'),
        (7, BYTES, "{}"),
    ],
)
def test_all_others_are_links(kind: Any, vocabulary: Any, settings: str, tmp_path: Path) -> None:
    folder = linked(tmp_path, kind=kind, vocabulary=vocabulary, settings=settings)
    assert {path.name for path in folder.iterdir()} == {"config.json", "tokenizer.json", "tokenizer_config.json"}
    assert all(path.is_symlink() for path in folder.iterdir())


def test_with_sentencepiece_s_own_file_nothing_is_said(tmp_path: Path) -> None:
    model, folder = tmp_path / "model", tmp_path / "folder"
    model.mkdir()
    folder.mkdir()
    for name, content in (("config.json", {"model_type": "phi3"}), ("tokenizer.json", {"model": BYTES}), ("tokenizer.model", {})):
        (model / name).write_text(json.dumps(content), encoding="utf-8")
    converted.link(model, folder)
    assert not (folder / "tokenizer_config.json").exists()
