"""The findings hold their form; whether they hold is seen by running them, which fetches packages and takes minutes."""

import os
import re
import subprocess
from pathlib import Path

import pytest

FINDINGS = sorted((Path(__file__).parents[1] / "findings").iterdir())
LONGEST = 120  # lines
_PACKAGE = re.compile(r"(?<![\w./-])(@?[A-Za-z][\w./-]*)(?:==|@)(\"?\$version|\d[\w.]*)")
_VERSION = re.compile(r"\d+\.\d+\.\d+")


def test_there_are_ten() -> None:
    assert len(FINDINGS) >= 10


@pytest.mark.parametrize("path", FINDINGS, ids=[path.stem for path in FINDINGS])
def test_a_finding_states_what_it_saw_and_runs_anywhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    assert (path.suffix, lines[0], os.access(path, os.X_OK)) == (".sh", "#!/usr/bin/env bash", True)
    assert len(lines) <= LONGEST
    subprocess.run(["bash", "-n", path], check=True, capture_output=True, timeout=10)
    head = " ".join(line.removeprefix("#").strip() for line in lines[1 : lines.index("set -euo pipefail")])
    assert _VERSION.search(head.partition(".  ")[0]), "the first sentence states versions"
    assert "Expected: " in head
    assert "Seen" in head.partition("Expected: ")[2]
    assert "Fails when that changes. Needs " in head
    assert "work=$(mktemp -d)\ntrap 'rm -rf \"$work\"' EXIT\n" in text, "nothing is left behind"
    program = text.partition("set -euo pipefail")[2]
    assert "sluice" not in program.lower(), "it runs without this project"
    assert "/home" not in program
    assert "/root" not in program


@pytest.mark.parametrize("path", FINDINGS, ids=[path.stem for path in FINDINGS])
def test_what_a_finding_fetches_is_pinned(path: Path) -> None:
    program = path.read_text(encoding="utf-8").partition("set -euo pipefail")[2].replace("\\\n", " ")
    fetching = [line for line in program.splitlines() if re.search(r"pip (install|download) |npm install ", line)]
    assert fetching
    for line in fetching:
        words = re.split(r"pip install|pip download|npm install", line)[1].split()
        named = [word for word in words if re.match(r'"?@?[A-Za-z]', word)]
        assert named, line
        assert [word for word in named if not _PACKAGE.search(word)] == [], line
