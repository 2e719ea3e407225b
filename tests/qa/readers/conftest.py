"""Nothing is remembered from another run, and the readers that are quickly fetched are there."""

from contextlib import suppress
from pathlib import Path

import pytest

from config.errors import ToolError
from engines import environments
from qa.readers import table


@pytest.fixture(autouse=True, scope="session")
def _light() -> None:
    """One that no registry gives is skipped by its tests, which say why."""
    for environment in environments.LIGHT:
        with suppress(ToolError):
            environments.install(environment)


@pytest.fixture(autouse=True)
def _fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "kept_in", lambda: tmp_path / "outcomes")
