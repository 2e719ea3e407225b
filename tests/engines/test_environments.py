"""Libraries of other versions, in folders of their own."""

from pathlib import Path

import pytest

from config.errors import ToolError
from engines import environments
from engines.environments import Environment


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")


def test_what_no_registry_has_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    absent = Environment("nothing", ("sluice-has-no-such-package==1.0",))
    with pytest.raises(ToolError, match="pip cannot fetch sluice-has-no-such-package==1.0: .*No matching distribution"):
        environments.install(absent)
    assert list((tmp_path / "readers").iterdir()) == []
    assert absent.missing() == "sluice-has-no-such-package==1.0 is not installed: `make readers` does"


def test_what_is_there_is_not_fetched_again() -> None:
    there = Environment("there", ("there==1.0", "beside==2.0"))
    there.folder.mkdir(parents=True)
    assert environments.install(there) == there.folder
    assert there.missing() is None
    assert Environment("there", ("there==1.0", "beside==2.1")).folder != there.folder


def test_node_is_asked_for_where_packages_are_of_npm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    package = Environment("package", ("@someone/package@1.2.3",), npm=True)
    assert package.version == "1.2.3"
    assert package.missing() == "Node.js is not installed"
    with pytest.raises(ToolError, match="Install Node.js 20 or newer with npm"):
        environments.install(package)


def test_every_package_is_pinned() -> None:
    for environment in environments.ALL:
        for package in environment.packages:
            name, _, version = package.rpartition("@" if environment.npm else "==")
            assert name, package
            assert version[0].isdigit(), package
