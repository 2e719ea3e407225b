"""The findings' runner, on small scripts of the same kind."""

import io
import re
import time
from pathlib import Path

import pytest
from rich.console import Console

from bench import findings

SOUND = 'test -z "$(ls -A)" && test -z "$(ls -A "$HOME")" && test -z "${HF_TOKEN:-}" && echo kept > "$HOME/file" && dirname "$HOME" > "$1"'


def written(folder: Path, name: str, program: str) -> Path:
    path = folder / f"{name}.sh"
    path.write_text(f"#!/usr/bin/env bash\nset -euo pipefail\n{program}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_a_finding_runs_from_an_empty_folder_and_home_that_are_gone_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    told = tmp_path / "told"
    script = written(tmp_path, "holds", SOUND.replace("$1", str(told)))
    for _ in range(2):
        assert findings.run(script).holds, "nothing of the first run is there in the second"
    assert not Path(told.read_text(encoding="utf-8").strip()).exists()


def test_what_fails_or_never_ends_is_told(tmp_path: Path) -> None:
    console = Console(file=(out := io.StringIO()), width=200)
    assert not findings.tell(console, [written(tmp_path, "something", "echo seen: two files; exit 3"), written(tmp_path, "other", "true")])
    lines = [re.sub(r"\d+ s$", "- s", " ".join(line.split())) for line in out.getvalue().splitlines()]
    assert lines == ["something fails - s", "seen: two files", "other holds - s"]
    ran = findings.run(written(tmp_path, "endless", f"(sleep 2; touch {tmp_path / 'late'}) & wait"), longest=0.5)
    assert (ran.holds, ran.said) == (False, ("It did not end in 0 seconds.",))
    time.sleep(2)
    assert not (tmp_path / "late").exists(), "nor does what it started live on"
