"""The bundled model, converted once for the tests of the engines."""

from pathlib import Path

import pytest

from engines import tools

DEMO = Path(__file__).parents[2] / "demo" / "model"


@pytest.fixture(scope="session")
def demo() -> Path:
    return DEMO


@pytest.fixture(scope="session")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("gguf") / "tiny-chat-BF16.gguf"
    tools.convert(DEMO, "--outtype", "bf16", "--outfile", file)
    return file
