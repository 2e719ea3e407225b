"""The bench of a first evening drives the program as a person would, with any model's folder."""

import shutil
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from bench import first

DEMO = Path(__file__).parents[2] / "demo" / "model"


@pytest.mark.slow
def test_it_tells_what_was_said_beforehand_what_was_left_and_each_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first, "MODELS", {"tiny-chat": lambda folder: shutil.copytree(DEMO, folder)})
    out = StringIO()
    first.release(Console(file=out, width=120), tmp_path, "tiny-chat", variants="Q8_0", out=tmp_path / "kept")
    told = out.getvalue()
    assert "Q8_0" in told
    assert "passed" in told
    assert "said beforehand" in told
    assert "left: tiny-chat-GGUF" in told
    assert (tmp_path / "kept" / "tiny-chat-GGUF" / "tiny-chat-Q8_0.gguf").is_file()
