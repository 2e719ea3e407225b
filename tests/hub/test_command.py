"""The stock `hf` command line, in processes of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hub.support import REPOSITORY, Place

Run = Callable[..., str]


@pytest.fixture
def hf(place: Place, tmp_path: Path) -> Run:
    """Runs `hf …` as user ann; returns what it printed."""
    token = place.api("ann", orgs=("acme",)).token
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "HF_HOME": str(tmp_path / "hf"),
        "HF_ENDPOINT": place.url,
        "HF_TOKEN": str(token),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }

    def run(*arguments: str) -> str:
        command = [str(Path(sys.executable).parent / "hf"), *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.mark.slow
def test_the_way_of_a_model(place: Place, hf: Run, tmp_path: Path) -> None:
    assert "ann" in hf("auth", "whoami")
    hf("repos", "create", "ann/tiny", "--private")
    uploaded = hf("upload", "ann/tiny", str(REPOSITORY / "demo/model"), "--commit-message", "first")
    assert "ann/tiny" in uploaded
    hf("download", "ann/tiny", "--local-dir", str(tmp_path / "down"))
    for file in (REPOSITORY / "demo/model").iterdir():
        assert (tmp_path / "down" / file.name).read_bytes() == file.read_bytes()
    hf("repos", "branch", "create", "ann/tiny", "dev")
    hf("repos", "tag", "create", "ann/tiny", "v1")
    hf("upload", "ann/tiny", str(REPOSITORY / "demo/model/README.md"), "docs/README.md", "--create-pr")
    hf("discussions", "merge", "ann/tiny", "1", "--yes")
    hf("repos", "delete-files", "ann/tiny", "docs/README.md")
    hf("repos", "settings", "ann/tiny", "--public")
    assert json.loads(hf("models", "info", "ann/tiny", "--format", "json"))["private"] is False
    assert [info["id"] for info in json.loads(hf("models", "ls", "--format", "json"))] == ["ann/tiny"]
    assert place.api(None).list_repo_refs("ann/tiny").tags[0].name == "v1"
    hf("repos", "move", "ann/tiny", "acme/tiny")
    hf("repos", "delete", "acme/tiny", "--yes")
    assert not place.api("ann").repo_exists("acme/tiny")
