"""What a model goes on with after one question: the same from the same file, in either engine, with a chat template and without."""

import shutil
from pathlib import Path

import pytest

from config.errors import MeasurementError, ToolError
from engines import tools
from qa.read_back import answer
from tests import releases
from tests.qa.conftest import Quantize, Release

ASKED = {"question": "What is the capital of France?", "max_tokens": 16, "threads": 1}


def said(model: Path) -> str:
    text = answer(Path("unused"), model=model, **ASKED)["answer"]  # type: ignore[arg-type]
    assert isinstance(text, str)
    return text


def test_a_file_and_its_copy_say_the_same_and_a_worse_one_something_else(quantize: Quantize, tmp_path: Path) -> None:
    first = said(quantize("Q4_0"))
    assert "Paris" in first
    assert said(Path(shutil.copy(quantize("Q4_0"), tmp_path / "copy.gguf"))) == first
    assert said(quantize("TQ1_0")) != first


def test_a_folder_answers_in_transformers(clean: Release) -> None:
    assert "Paris" in said(clean.model)


def test_a_base_model_goes_on_from_the_words(tmp_path: Path) -> None:
    model = releases.base_model(tmp_path / "model")
    gguf = tmp_path / "base.gguf"
    tools.convert(model, "--outtype", "bf16", "--outfile", gguf)
    assert said(gguf)
    assert said(model)


def test_what_cannot_be_loaded_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF" * 100)
    with pytest.raises((MeasurementError, ToolError)):
        said(tmp_path / "model.gguf")
