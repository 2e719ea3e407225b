"""The bundled model as upstream publishes it and as it should be, each as 16-bit GGUF, and one quantized variant."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from engines import tools
from tests import releases

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "demo" / "model"
DATA = ROOT / "demo" / "data"


@dataclass(frozen=True)
class Release:
    """A model folder and its 16-bit GGUF."""

    model: Path
    gguf: Path


Quantize = Callable[[str], Path]


@pytest.fixture(scope="session")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return _converted(DEMO, tmp_path_factory.mktemp("broken"))


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Release:
    folder = tmp_path_factory.mktemp("clean")
    return _converted(releases.clean(folder / "model"), folder)


def _converted(model: Path, folder: Path) -> Release:
    tools.convert(model, "--outtype", "bf16", "--outfile", folder / "BF16.gguf")
    return Release(model=model, gguf=folder / "BF16.gguf")


@pytest.fixture(scope="session")
def quantize(clean: Release, tmp_path_factory: pytest.TempPathFactory) -> Quantize:
    """Quantizes the clean model, without an importance matrix."""
    folder = tmp_path_factory.mktemp("quantized")

    def make(name: str) -> Path:
        file = folder / f"{name}.gguf"
        if not file.exists():
            tools.run("llama-quantize", clean.gguf, file, name, "1")
        return file

    return make
