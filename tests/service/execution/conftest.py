from collections.abc import Iterator
from pathlib import Path

import pytest

from service.execution import process


@pytest.fixture(scope="package", autouse=True)
def _importable() -> Iterator[None]:
    """Lets the processes of stages import functions of these tests."""
    real, root = process._environment, str(Path(__file__).parents[3])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "_environment", lambda threads: real(threads) | {"PYTHONPATH": root})
        process._fork_server.cache_clear()
        yield
    process._fork_server.cache_clear()
