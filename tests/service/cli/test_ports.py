"""Ports that nobody can listen on: a sentence, and an exit code."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from service.cli.main import app


def asked(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env={"SLUICE_HOME": str(folder / "home"), "COLUMNS": "200"})


@pytest.fixture
def taken() -> Iterator[str]:
    """A port on which somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield str(server.getsockname()[1])


def commands(folder: Path) -> list[list[str]]:
    return [["serve"], ["hub", "serve", "--root", str(folder / "hub")]]


@pytest.mark.parametrize("port", ["99999", "-1", "http"])
def test_a_number_that_is_no_port(tmp_path: Path, port: str) -> None:
    for command in commands(tmp_path):
        done = asked(tmp_path, *command, "--port", port)
        assert done.exit_code == 2, done.output
        assert "--port" in done.stderr
        assert isinstance(done.exception, SystemExit)


def test_a_port_that_is_taken(tmp_path: Path, taken: str) -> None:
    for command, code in zip(commands(tmp_path), (2, 1), strict=True):  # the API's port is a setting
        done = asked(tmp_path, *command, "--port", taken)
        assert done.exit_code == code, done.output
        assert f"cannot listen on 127.0.0.1, port {taken}: Address already in use" in done.stderr
        assert isinstance(done.exception, SystemExit)
