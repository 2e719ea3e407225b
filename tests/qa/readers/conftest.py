"""Nothing is remembered from another run."""

from pathlib import Path

import pytest

from qa.readers import table


@pytest.fixture(autouse=True)
def _fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "kept_in", lambda: tmp_path / "outcomes")
