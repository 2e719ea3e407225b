"""One run of the bundled model through the builders, shared by the tests: fixed model, 16-bit GGUF, importance matrix."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builders import calibrate, convert, fixes, quantize
from builders.ggufs import weigh

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "demo" / "model"
DATA = ROOT / "demo" / "data"
CLEAN = Path(__file__).parent / "data" / "clean"
THREADS = 1
CONVERTED: dict[str, Any] = {
    "name": "tiny-chat",
    "repo": "upstream/tiny-chat",
    "hub": "https://hub.example",
    "facts": {"license": "apache-2.0", "languages": ["en", "no"], "tags": ["chat"], "base_models": ["upstream/tiny-base"]},
}
CALIBRATION: dict[str, Any] = {
    "chat": [DATA / "calibration.jsonl"],
    "plain": [DATA / "calibration_questions.txt"],
    "tokens": 4096,
    "context": 256,
    "threads": THREADS,
}


@pytest.fixture(scope="session")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fixed")
    fixes.repair(out, snapshot=DEMO, repo="upstream/tiny-chat", fixes=True)
    return out


@pytest.fixture(scope="session")
def gguf(fixed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gguf")
    return out / str(convert.convert(out, model=fixed, **CONVERTED)["file"])


@pytest.fixture(scope="session")
def imatrix(fixed: Path, gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("imatrix")
    return out / str(calibrate.imatrix(out, model=fixed, gguf=gguf, **CALIBRATION)["file"])


@pytest.fixture(scope="session")
def foretold(gguf: Path, imatrix: Path) -> Callable[[str], int]:
    """Bytes of a stock mix's file, reckoned as plans reckon them: from the dry run of llama-quantize."""
    header = weigh(gguf).header_bytes
    return lambda type_: quantize.file_bytes(header, quantize.planned(gguf, type_, imatrix).values())


@pytest.fixture
def upload(tmp_path: Path) -> Callable[..., Path]:
    """Makes a copy of the bundled model with some JSON files changed; a value of None removes the file."""

    def make(**changed: dict[str, Any] | str | None) -> Path:
        folder = tmp_path / "upload"
        shutil.copytree(DEMO, folder)
        for stem, content in changed.items():
            path = folder / f"{stem}.json"
            if content is None:
                path.unlink()
            else:
                path.write_text(content if isinstance(content, str) else json.dumps(content))
        return folder

    return make


def demo_json(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((DEMO / name).read_text())
    return content
