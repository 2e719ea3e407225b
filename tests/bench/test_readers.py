"""The readers' table as it is printed, of a folder with one GGUF file and by readers that take no time."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from bench import readers
from config.words import MANIFEST
from engines import environments
from qa.readers import ctranslate2, gguf_py, openvino_genai, table


def test_the_table_names_readers_with_what_they_made_of_files_and_what_is_not_run(gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "kept_in", lambda: tmp_path / "outcomes")
    monkeypatch.setenv("SLUICE_CACHE", str(tmp_path / "cache"))
    repo = tmp_path / "released" / "tiny-chat-GGUF"
    repo.mkdir(parents=True)
    shutil.copy(gguf, repo / "tiny-chat-BF16.gguf")
    (repo / "tiny-chat-Q8_0.gguf").write_bytes(gguf.read_bytes()[:100_000])
    variants = [{"tag": tag, "files": [f"tiny-chat-{tag}.gguf"]} for tag in ("BF16", "Q8_0")]
    (repo / MANIFEST).write_text(json.dumps({"variants": variants}), encoding="utf-8")
    # a place that was reckoned once is kept, hence another record of the same packages
    absent = replace(openvino_genai.READER, missing=replace(environments.OPENVINO).missing)
    console = Console(file=(out := io.StringIO()), width=120)
    readers.show(console, tmp_path / "released", (gguf_py.READER, absent, ctranslate2.READER))
    told = out.getvalue()
    lines = [" ".join(line.split()) for line in told.replace("│", " ").splitlines()]
    assert "released: 2 variants" in lines
    version = gguf_py.READER.version()
    assert f"{gguf_py.READER.name} {version} BF16 Q8_0" in lines, told
    assert f"{absent.name} {absent.version()} (not run)" in lines, told
    assert f"{absent.name}, not run: all: {environments.OPENVINO.packages[0]} is not installed: `make readers` does" in lines, told
    assert any(line.startswith(f"{gguf_py.READER.name}, refuses in words: Q8_0: ") for line in lines), told
    assert ctranslate2.READER.name not in told, "it reads no GGUF"
