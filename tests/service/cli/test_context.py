import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.cli.main import app

ROOT = Path(__file__).parents[3]

WAIT = """
import sys, time
from pathlib import Path
import typer
from service.cli.context import explained

def main(signals: bool = True) -> None:
    with explained(signals=signals):
        try:
            print("ready", flush=True)
            time.sleep(60)
        finally:
            time.sleep(0.5)
            Path("in-order").touch()

typer.run(main)
"""


def signalled(folder: Path, *numbers: signal.Signals, arguments: tuple[str, ...] = ()) -> tuple[int, str]:
    """Exit code and standard error of a command that is sent the signals one right after the other."""
    with subprocess.Popen(
        [sys.executable, "-c", WAIT, *arguments], cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for number in numbers:
            process.send_signal(number)
            time.sleep(0.1)
        _, errors = process.communicate(timeout=30)
        return process.returncode, errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_in_order(tmp_path: Path, number: signal.Signals) -> None:
    assert signalled(tmp_path, number) == (1, "interrupted; start the same command again and it goes on where it was\n")
    assert (tmp_path / "in-order").exists()


def test_a_signal_that_follows_at_once_breaks_nothing_off(tmp_path: Path) -> None:
    assert signalled(tmp_path, signal.SIGHUP, signal.SIGTERM, signal.SIGINT)[0] == 1
    assert (tmp_path / "in-order").exists()


def test_what_nohup_ignores_stays_ignored(tmp_path: Path) -> None:
    with subprocess.Popen(["nohup", sys.executable, "-c", WAIT], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=2)
        process.terminate()
        assert process.wait(timeout=30) == 1


def test_a_command_with_signals_of_its_own_keeps_them(tmp_path: Path) -> None:
    code, errors = signalled(tmp_path, signal.SIGTERM, arguments=("--no-signals",))
    assert (code, errors) == (-signal.SIGTERM, "")
    assert not (tmp_path / "in-order").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["quantize", ROOT / "demo/model", "--type", "Q8_0"],
        ["fix", ROOT / "demo/model", "--dry-run"],
        ["demo", "--home", "file/below"],
        ["hub", "token", "--root", "file/below", "--user", "me"],
    ],
    ids=lambda words: words[0],
)
def test_where_nothing_can_be_written_is_said_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str | Path]) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(app, [*map(str, words)], env={"SLUICE_HOME": str(tmp_path / "file" / "home"), "COLUMNS": "400"})
    assert found.exit_code == 1, found.exception
    said = " ".join(found.output.split())
    assert "Nothing can be written or read at " in said
    assert "Not a directory. Use a folder where you may write" in said
