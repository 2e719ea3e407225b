"""What commands import: `sluice --help` is to be there at once, and libraries are loaded by those who need them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.cli.deferred import Deferred
from service.cli.main import COMMANDS, app
from service.store import open_store

HEAVY = {"alembic", "fastapi", "huggingface_hub", "llama_cpp", "numpy", "sqlalchemy", "structlog", "torch", "transformers"}
ROOMS = {"builders", "config", "engines", "hub", "publishers", "qa"}
RUN = """
import sys
from service.cli import main
sys.argv = ["sluice", *sys.argv[2:]]
try:
    main()
finally:
    import json, pathlib
    pathlib.Path(sys.orig_argv[3]).write_text(json.dumps(sorted(sys.modules)))
"""


def imported(folder: Path, *arguments: str) -> set[str]:
    """Every module that a command imports, in a process of its own."""
    report, home = folder / "modules.json", {"SLUICE_HOME": str(folder / "home")}
    done = subprocess.run([sys.executable, "-c", RUN, report, *arguments], env=os.environ | home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(report.read_text()))


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_the_list_of_commands_imports_none_of_them(tmp_path: Path, option: str) -> None:
    found = imported(tmp_path, option)
    assert not found & (HEAVY | ROOMS)
    assert {name for name in found if name.startswith("service.")} == {
        "service.cli",
        "service.cli.deferred",
        "service.cli.main",
        "service.cli.usage",
        "service.cli.writing",
    }


@pytest.mark.parametrize(
    "command", ["demo", "run", "status", "stages", "report", "gates", "waive", "adopt", "plan", "quantize", "serve", "doctor", "measure", "hub", "token"]
)
def test_the_help_of_a_command_imports_no_library_that_only_its_work_needs(tmp_path: Path, command: str) -> None:
    assert not imported(tmp_path, command, "--help") & HEAVY


def test_a_database_that_is_up_to_date_is_opened_without_alembic(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    open_store(f"sqlite:///{tmp_path / 'home' / 'sluice.db'}").close()
    found = imported(tmp_path, "token", "list")
    assert "sqlalchemy" in found
    assert "alembic" not in found


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_of_a_command_what_its_own_help_says_first(name: str) -> None:
    target, summary = COMMANDS[name]
    command = Deferred(name, target, summary).load()
    assert command.name == name
    assert " ".join(command.help.partition("\n\n")[0].split()) == summary


def test_a_command_that_is_not_there_is_told_with_those_that_are_near() -> None:
    done = CliRunner().invoke(app, ["statsu"])
    assert done.exit_code == 2
    assert "Did you mean 'status'" in " ".join(done.stderr.split())
