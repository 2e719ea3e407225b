"""The doctor looks at real things: this environment, databases, and small HTTP servers in the Hub's place."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from pydantic import SecretStr

from config.settings import Settings, load_settings
from engines import toolchain
from service.machine import basics, doctor
from service.machine.basics import Finding
from tests.answering import answering

TOKEN = "hf_a_token_that_must_not_be_shown"


def saying(status: int, body: object) -> AbstractContextManager[str]:
    """A server that gives one answer to everything; yields its URL."""
    return answering(lambda _: (status, {}, json.dumps(body).encode()))


def by_name(findings: list[Finding] | Iterator[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def nowhere(tmp_path: Path, **changes: object) -> Settings:
    """Settings with a home of its own and a Hub at which nobody listens."""
    return Settings(home=tmp_path / "home", hub_endpoint="http://127.0.0.1:9").with_(**changes)


def test_this_installation_is_complete(tmp_path: Path) -> None:
    findings = doctor.examine(lambda: nowhere(tmp_path, threads=1))
    assert [finding.name for finding in findings if finding.ok is False] == []
    names = by_name(findings)
    assert {"Python", "torch", "loading libraries", "llama.cpp", "converter", "memory", "GPU", "database", "Hub", "Hub login"} <= set(names)
    assert names["llama-cpp-python"].value == basics.pins()["llama-cpp-python"]
    assert names["C++ compiler"].ok is None, "what was built needs it no more"
    assert not (tmp_path / "home").exists(), "looking creates nothing"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries are not loaded, which takes long."""
    monkeypatch.setattr(basics, "loading", lambda libraries: iter(()))


@pytest.mark.usefixtures("quick")
def test_what_is_not_ok_comes_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_LLAMA_CPP", str(tmp_path / "absent"))
    monkeypatch.setattr(doctor, "DISK_NEEDED", 2**60)
    monkeypatch.setattr(doctor, "MEMORY_NEEDED", 2**60)
    findings = doctor.examine(lambda: nowhere(tmp_path, threads=4096))
    wrong = {finding.name for finding in findings if finding.ok is False}
    assert wrong == {"llama.cpp", "disk at home", "disk at cache", "memory", "processors"}, "what is missing is said once"
    assert all(finding.advice for finding in findings if finding.ok is False)
    assert "unset it" in (by_name(findings)["llama.cpp"].advice or "")


def test_before_llama_cpp_is_built_a_compiler_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "location", lambda: tmp_path / "none")
    monkeypatch.delenv("SLUICE_LLAMA_CPP", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    findings = by_name(doctor._llama_cpp())
    assert {name: finding.ok for name, finding in findings.items()} == {"C++ compiler": False, "llama.cpp": False}
    assert "build-essential" in (findings["C++ compiler"].advice or "")
    assert "make setup" in (findings["llama.cpp"].advice or "")


@pytest.mark.usefixtures("quick")
def test_with_settings_that_are_wrong_the_rest_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "sluice.yaml").write_text("memory_gb: 3\n")
    findings = by_name(doctor.examine(lambda: load_settings(tmp_path / "sluice.yaml")))
    assert findings["settings"].ok is False
    assert "did you mean `memory_gib`" in findings["settings"].value
    assert {"memory", "database", "Hub"} <= set(findings)


def test_a_home_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("in the way")
    finding = by_name(doctor._machine(nowhere(tmp_path)))["disk at home"]
    assert finding.ok is False
    assert "is not a folder" in finding.value
    assert "SLUICE_HOME" in (finding.advice or "")
    read_only = by_name(doctor._machine(nowhere(tmp_path).with_(home=Path("/proc/nothing-can-be-made-here"))))["disk at home"]
    assert read_only.ok is False
    assert "nothing can be written there" in read_only.value


def test_where_looking_fails_the_rest_is_told() -> None:
    def look() -> Iterator[Finding]:
        yield Finding(name="first", value="there", ok=True)
        raise AttributeError("module 'x' has no attribute 'y'")

    first, failed = doctor.looked("second", look)
    assert (first.name, failed.name, failed.ok) == ("first", "second", False)
    assert "AttributeError: module 'x'" in failed.value


def test_wrong_library_version(monkeypatch: pytest.MonkeyPatch, quick: None) -> None:
    pins = basics.pins()
    monkeypatch.setattr(basics, "pins", lambda: pins | {"torch": "9.9", "rich": "9.9", "absent-library": "1.0"})
    findings = by_name(basics.python())
    assert findings["torch"].ok is False
    assert findings["torch"].advice == "torch 9.9 is wanted: run `make setup`."
    assert findings["transformers"].ok is True
    assert findings["other libraries"].ok is False
    assert "absent-library missing" in findings["other libraries"].value


def test_a_library_that_cannot_be_loaded_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "yaml").mkdir()
    (tmp_path / "yaml" / "__init__.py").write_text("raise OSError('libyaml.so: no such file')")
    (tmp_path / "psutil.py").write_text("import os; os._exit(9)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    findings = by_name(basics.loading(["typer", "pyyaml", "psutil"]))
    assert findings["pyyaml loads"].value == "OSError: libyaml.so: no such file"
    assert findings["psutil loads"].value == "ended Python with code 9"
    assert all("make setup" in (finding.advice or "") for finding in findings.values())


def test_pins_are_the_declared_ones() -> None:
    assert basics.pins()["torch"] == "2.13.0"
    assert basics.pins()["psycopg"] == "3.3.9", "extras of a library are not part of its name"
    assert "ruff" not in basics.pins(), "extras are not needed to run"


@pytest.mark.parametrize(
    ("status", "body", "hub", "login", "value"),
    [
        (200, {"name": "somebody", "auth": {"accessToken": {"role": "write"}}}, True, True, "somebody, role write"),
        (200, {"name": "somebody", "auth": {"accessToken": {"role": "read"}}}, True, False, "somebody, role read"),
        (401, {"error": "Invalid credentials"}, True, False, "the Hub does not accept the token"),
    ],
)
def test_hub_login(tmp_path: Path, status: int, body: object, hub: bool, login: bool, value: str) -> None:
    with saying(status, body) as endpoint:
        findings = by_name(doctor._hub(nowhere(tmp_path, hub_endpoint=endpoint, hub_token=SecretStr(TOKEN))))
    assert (findings["Hub"].ok, findings["Hub login"].ok, findings["Hub login"].value) == (hub, login, value)
    assert TOKEN not in repr(findings)


def test_hub_without_a_token(tmp_path: Path) -> None:
    with saying(401, {"error": "Invalid username or password."}) as endpoint:
        findings = by_name(doctor._hub(nowhere(tmp_path, hub_endpoint=endpoint)))
    assert findings["Hub"].ok is True
    assert findings["Hub login"].ok is None
    assert "SLUICE_HUB_TOKEN" in (findings["Hub login"].advice or "")


def test_something_that_is_not_a_hub(tmp_path: Path) -> None:
    with saying(404, "not here") as endpoint:
        findings = by_name(doctor._hub(nowhere(tmp_path, hub_endpoint=endpoint)))
    assert findings["Hub"].ok is False
    assert "404" in findings["Hub"].value


def test_hub_that_does_not_answer_is_worth_knowing_only(tmp_path: Path) -> None:
    findings = by_name(doctor._hub(nowhere(tmp_path, hub_token=SecretStr(TOKEN))))
    assert findings["Hub"].ok is None
    assert "does not answer" in findings["Hub"].value


def test_database_that_is_not_there_yet(tmp_path: Path) -> None:
    finding = doctor._database(nowhere(tmp_path))
    assert finding.ok is None
    assert "the first run creates it" in finding.value


def test_database_before_and_after_migration(database_url: str, tmp_path: Path) -> None:
    from service.store import connect

    settings = nowhere(tmp_path, database_url=database_url)
    if database_url.startswith("sqlite"):
        sqlite3.connect(tmp_path / "test.db").close()
    assert "empty; the next start" in doctor._database(settings).value or "does not exist yet" in doctor._database(settings).value
    connect(database_url).dispose()
    assert doctor._database(settings).ok is True


def test_database_that_does_not_answer(tmp_path: Path) -> None:
    finding = doctor._database(nowhere(tmp_path, database_url="postgresql+psycopg://sluice:hidden@127.0.0.1:9/sluice"))
    assert finding.ok is False
    assert "not reachable" in finding.value
    assert "hidden" not in repr(finding)


def test_database_url_that_makes_no_sense(tmp_path: Path) -> None:
    assert doctor._database(nowhere(tmp_path, database_url="nonsense")).ok is False
    assert doctor._database(nowhere(tmp_path, database_url="nosuch://host/name")).ok is False


def test_settings_file_in_force_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (finding,) = doctor._configuration(load_settings, [])
    assert "no sluice.yaml" in finding.value
    (tmp_path / "sluice.yaml").write_text("threads: 1\n")
    (finding,) = doctor._configuration(load_settings, [])
    assert finding.value == "sluice.yaml and the environment"


def test_cards_are_what_the_drivers_tool_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'Some Card, 24576 MiB'\necho 'Other Card, 8192 MiB'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert doctor._cards() == "Some Card, 24576 MiB; Other Card, 8192 MiB"
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert doctor._cards() == ""
