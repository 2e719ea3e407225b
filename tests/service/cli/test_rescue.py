"""`sluice` in an installation that lacks a library, or in which one is broken: a sentence instead of a traceback, and a doctor that still looks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.cli import rescue

BLOCKER = """
import os, sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == os.environ["TEST_MISSING"]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
"""


def without(folder: Path, library: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a Python that finds everything but one library."""
    (folder / "sitecustomize.py").write_text(BLOCKER)
    environment = os.environ | {
        "PYTHONPATH": str(folder),
        "TEST_MISSING": library,
        "SLUICE_HOME": str(folder / "home"),
        "SLUICE_HUB_ENDPOINT": "http://127.0.0.1:9",
    }
    program = [sys.executable, "-c", "from service.cli import main; main()", *arguments]
    return subprocess.run(program, env=environment, cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("library", ["typer", "rich", "pydantic", "sqlalchemy"])
def test_a_missing_library_is_told_in_a_sentence(tmp_path: Path, library: str) -> None:
    done = without(tmp_path, library, "status")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"error: A library that Sluice needs cannot be loaded: No module named '{library}'. "
        "Run `make setup`, which installs all of them; `sluice doctor` shows what else is missing.\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize("library", ["typer", "psutil"])
def test_the_doctor_looks_at_what_is_left(tmp_path: Path, library: str) -> None:
    done = without(tmp_path, library, "doctor")
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert f"{library} loads" in done.stdout
    assert "Python" in done.stdout
    assert "make setup" in done.stdout


def test_a_fault_of_ours_is_not_blamed_on_the_installation() -> None:
    with pytest.raises(ImportError, match="nothing"):
        rescue.tell(ImportError("cannot import name 'nothing'", name="service.cli.status"), ["status"])


def test_another_python_is_told_which_one_is_needed(tmp_path: Path) -> None:
    program = "import service.cli as cli; cli.PYTHON = ((3, 99, 0), (4, 0)); cli.main()"
    done = subprocess.run([sys.executable, "-c", program, "doctor"], cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: Sluice needs Python 3.11 (3.11.4 or newer), and this is 3.")
    assert "make setup PYTHON=" in done.stderr
