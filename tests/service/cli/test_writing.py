"""Commands in terminals of other times: what cannot be written is written plainly, and nothing ends in the middle."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from service.cli.writing import plain

PROGRAM = [sys.executable, "-c", "from service.cli import main; main()"]


def told(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*PROGRAM, *arguments], env=os.environ | {"SLUICE_HOME": str(folder), "COLUMNS": "80"} | environment, capture_output=True, timeout=60, check=False
    )


def test_plain_characters_stand_in_the_place_of_those_that_are_not_known() -> None:
    assert plain("0.1 ± 0.2 … ✓ ━─ — Zürich", "ascii") == "0.1 +- 0.2 ... + #- - Z?rich"
    assert plain("0.1 ± 0.2 … Zürich", "latin-1") == "0.1 ± 0.2 ... Zürich"
    assert plain("⠋ ± 字", "utf-8") == "⠋ ± 字"
    assert plain("⠋", "ascii") == "*"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("arguments", [["--help"], ["quantize", "--help"], ["stages"], ["status"], ["gates", "1"], ["nonesuch"]])
def test_every_command_can_be_read_in_ascii_and_latin_1(tmp_path: Path, encoding: str, arguments: list[str]) -> None:
    done = told(tmp_path, *arguments, PYTHONIOENCODING=encoding)
    assert b"Traceback" not in done.stderr
    assert b"UnicodeEncodeError" not in done.stderr
    assert (done.stdout + done.stderr).decode(encoding).strip()


def test_json_is_the_same_in_every_encoding(tmp_path: Path) -> None:
    ascii_, utf = (told(tmp_path, "stages", "--json", PYTHONIOENCODING=encoding) for encoding in ("ascii", "utf-8"))
    assert json.loads(ascii_.stdout.decode("ascii")) == json.loads(utf.stdout)


@pytest.mark.parametrize(("locale", "frame"), [("C", b"+-"), ("C.UTF-8", "╭─".encode())])
def test_a_terminal_whose_locale_is_c_gets_ascii(tmp_path: Path, locale: str, frame: bytes) -> None:
    """As it is there, with a terminal on the other end."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHONIO", "PYTHONUTF8"))}
    leader, follower = pty.openpty()
    with subprocess.Popen([*PROGRAM, "hub", "--help"], env=environment | {"LANG": locale, "TERM": "xterm"}, stdout=follower, stderr=follower) as process:
        os.close(follower)
        text = b""
        try:
            while part := os.read(leader, 4096):
                text += part
        except OSError:
            pass  # the other end is closed
        assert process.wait(timeout=60) == 0
    os.close(leader)
    assert frame in text
    assert text.isascii() == (locale == "C")


@pytest.mark.parametrize("arguments", [["stages"], ["stages", "--json"], ["--help"], ["status"]])
def test_a_pipe_that_is_closed_ends_a_command_quietly(tmp_path: Path, arguments: list[str]) -> None:
    with subprocess.Popen([*PROGRAM, *arguments], env=os.environ | {"SLUICE_HOME": str(tmp_path)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        process.wait(timeout=60)
