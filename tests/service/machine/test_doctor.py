"""The doctor looks at real things: this environment, databases, and small HTTP servers in the Hub's place."""

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pydantic import SecretStr

from config.settings import Settings, load_settings
from service.machine import doctor
from service.machine.doctor import Finding

TOKEN = "hf_a_token_that_must_not_be_shown"


@contextmanager
def answering(status: int, body: object) -> Iterator[str]:
    """A server that gives one answer to everything; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def by_name(findings: list[Finding] | Iterator[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def nowhere(tmp_path: Path, **changes: object) -> Settings:
    """Settings with a home of its own and a Hub at which nobody listens."""
    return Settings(home=tmp_path / "home", hub_endpoint="http://127.0.0.1:9").with_(**changes)


def test_this_installation_is_complete(tmp_path: Path) -> None:
    findings = doctor.examine(nowhere(tmp_path, threads=1))
    assert [finding.name for finding in findings if finding.ok is False] == []
    names = by_name(findings)
    assert {"Python", "torch", "llama.cpp", "converter", "memory", "GPU", "database", "Hub", "Hub login"} <= set(names)
    assert names["llama-cpp-python"].value == doctor.pins()["llama-cpp-python"]
    assert not (tmp_path / "home").exists(), "looking creates nothing"


def test_what_is_not_ok_comes_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_LLAMA_CPP", str(tmp_path / "absent"))
    monkeypatch.setattr(doctor, "DISK_NEEDED", 2**60)
    monkeypatch.setattr(doctor, "MEMORY_NEEDED", 2**60)
    findings = doctor.examine(nowhere(tmp_path, threads=4096))
    wrong = {finding.name for finding in findings if finding.ok is False}
    assert {"llama.cpp tools", "llama.cpp version", "converter", "disk at home", "disk at cache", "memory", "processors"} <= wrong
    assert all(finding.advice for finding in findings if finding.ok is False)


def test_wrong_library_version(monkeypatch: pytest.MonkeyPatch) -> None:
    pins = doctor.pins()
    monkeypatch.setattr(doctor, "pins", lambda: pins | {"torch": "9.9", "rich": "9.9", "absent-library": "1.0"})
    findings = by_name(doctor._python())
    assert findings["torch"].ok is False
    assert findings["torch"].advice == "torch 9.9 is wanted: run `make setup`."
    assert findings["transformers"].ok is True
    assert findings["other libraries"].ok is False
    assert "absent-library missing" in findings["other libraries"].value


def test_pins_are_the_declared_ones() -> None:
    assert doctor.pins()["torch"] == "2.13.0"
    assert "ruff" not in doctor.pins(), "extras are not needed to run"


@pytest.mark.parametrize(
    ("status", "body", "hub", "login", "value"),
    [
        (200, {"name": "somebody", "auth": {"accessToken": {"role": "write"}}}, True, True, "somebody, role write"),
        (200, {"name": "somebody", "auth": {"accessToken": {"role": "read"}}}, True, False, "somebody, role read"),
        (401, {"error": "Invalid credentials"}, True, False, "the Hub does not accept the token"),
    ],
)
def test_hub_login(tmp_path: Path, status: int, body: object, hub: bool, login: bool, value: str) -> None:
    with answering(status, body) as endpoint:
        findings = by_name(doctor._hub(nowhere(tmp_path, hub_endpoint=endpoint, hub_token=SecretStr(TOKEN))))
    assert (findings["Hub"].ok, findings["Hub login"].ok, findings["Hub login"].value) == (hub, login, value)
    assert TOKEN not in repr(findings)


def test_hub_without_a_token(tmp_path: Path) -> None:
    with answering(401, {"error": "Invalid username or password."}) as endpoint:
        findings = by_name(doctor._hub(nowhere(tmp_path, hub_endpoint=endpoint)))
    assert findings["Hub"].ok is True
    assert findings["Hub login"].ok is None
    assert "SLUICE_HUB_TOKEN" in (findings["Hub login"].advice or "")


def test_something_that_is_not_a_hub(tmp_path: Path) -> None:
    with answering(404, "not here") as endpoint:
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
    assert "no sluice.yaml" in doctor._configuration(load_settings()).value
    (tmp_path / "sluice.yaml").write_text("threads: 1\n")
    assert "sluice.yaml" in doctor._configuration(load_settings()).value


def test_cards_are_what_the_drivers_tool_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'Some Card, 24576 MiB'\necho 'Other Card, 8192 MiB'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert doctor._cards() == "Some Card, 24576 MiB; Other Card, 8192 MiB"
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert doctor._cards() == ""
