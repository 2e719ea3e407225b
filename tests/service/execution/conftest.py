from pathlib import Path

import pytest

from service.execution import process


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the processes of stages import functions of these tests."""
    real, root = process._environment, str(Path(__file__).parents[3])
    monkeypatch.setattr(process, "_environment", lambda folder, threads: real(folder, threads) | {"PYTHONPATH": root})
