"""Fixtures that drive Sluice from outside: its command, its daemon and the embedded Hub as processes."""

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import HfApi

from hub.tokens import create_token

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent
RECIPE = Path(__file__).parent / "recipe.yaml"
UPSTREAM = "upstream/tiny-chat"
NAMESPACE = "acme"

Made = Callable[[Path], Path]
"""Gives a home what the small recipe makes of the bundled model, and returns it."""


def environment(**extra: str) -> dict[str, str]:
    """The caller's environment without anything that configures Sluice or logs in to a Hub, but for what the tests themselves set."""
    ours = {"SLUICE_CACHE", "SLUICE_LLAMA_CPP", "SLUICE_THREADS"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLUICE_", "HF_")) or name in ours}
    return kept | {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"} | extra


def sluice(*arguments: str | Path, timeout: float = 900, cwd: Path | None = None, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, headless."""
    command, settings = [PROGRAMS / "sluice", *arguments], environment(**extra)
    return subprocess.run(command, env=settings, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False)


def small() -> dict[str, Any]:
    """The small recipe, with the places of its data as seen from anywhere."""
    found: dict[str, Any] = yaml.safe_load(RECIPE.read_text(encoding="utf-8").replace("../../demo", str(ROOT / "demo")))
    return found


def saved(folder: Path, recipe: Mapping[str, Any]) -> Path:
    """A file with this recipe."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


def slow_recipe(folder: Path) -> Path:
    """The small recipe on all calibration text there is, so that llama-imatrix works long enough to be caught at it."""
    found = small()
    found["calibration"] |= {"plain": [str(ROOT / "demo" / "data" / "calibration_questions.txt")], "tokens": 400_000}
    return saved(folder, found)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def wait_until(condition: Any, *, seconds: float, what: str) -> Any:
    """The first true value of `condition()`; fails the test when there is none in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.2)
    pytest.fail(f"waited {seconds:.0f} s for {what}")


@dataclass
class Hub:
    """A running embedded Hub with an upstream account and a publishing account."""

    root: Path
    url: str
    upstream: HfApi
    publisher_token: str = field(repr=False)

    @property
    def publisher(self) -> HfApi:
        return HfApi(endpoint=self.url, token=self.publisher_token)

    def environment(self, home: Path, **extra: str) -> dict[str, str]:
        """Settings of a service that publishes here."""
        return {"SLUICE_HOME": str(home), "SLUICE_HUB_ENDPOINT": self.url, "SLUICE_HUB_TOKEN": self.publisher_token, "SLUICE_NAMESPACE": NAMESPACE, **extra}

    def commits(self, repo: str) -> list[str]:
        return [commit.commit_id for commit in self.publisher.list_repo_commits(repo)]

    def push(self, repo: str = UPSTREAM, folder: Path = ROOT / "demo" / "model", message: str = "release") -> str:
        self.upstream.create_repo(repo, exist_ok=True)
        return self.upstream.upload_folder(repo_id=repo, folder_path=folder, commit_message=message).oid


@contextmanager
def serving_hub(root: Path) -> Iterator[Hub]:
    """`sluice hub serve` as a process, with the bundled model pushed upstream."""
    port = free_port()
    with subprocess.Popen(
        [PROGRAMS / "sluice", "hub", "serve", "--root", root, "--port", str(port)], env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert "embedded Hub at" in process.stdout.readline()
            url = f"http://127.0.0.1:{port}"
            found = Hub(
                root=root,
                url=url,
                upstream=HfApi(endpoint=url, token=create_token(root, user="upstream")),
                publisher_token=create_token(root, user="publisher", orgs=[NAMESPACE]),
            )
            found.push()
            yield found
        finally:
            process.terminate()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """An embedded Hub of the test's own."""
    with serving_hub(tmp_path / "hub") as found:
        yield found


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Gives a home what the small recipe makes of the bundled model, where a test is about something else than the making; it returns the home.

    It is made once, by the worker that asks first.
    """
    own = tmp_path_factory.getbasetemp()
    shared = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "made"
    shared.mkdir(exist_ok=True)
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "complete").exists():
            with serving_hub(shared / "hub") as hub:
                done = sluice("run", UPSTREAM, "--recipe", RECIPE, **hub.environment(shared / "home"))
            assert done.returncode == 3, done.stdout + done.stderr
            (shared / "complete").touch()

    def given(home: Path) -> Path:
        shutil.copytree(shared / "home" / "stages", home / "stages")
        return home

    return given


@dataclass(frozen=True)
class Demo:
    """What `sluice demo --json` printed and left."""

    home: Path
    code: int
    output: str
    errors: str

    @property
    def summary(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.output)
        return document

    def variant(self, tag: str) -> dict[str, Any]:
        row: dict[str, Any] = next(row for row in self.summary["variants"] if row["tag"] == tag)
        return row


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The demo, run once for all tests that look at it."""
    home = tmp_path_factory.mktemp("demo")
    done = sluice("demo", "--home", home, "--json")
    return Demo(home=home, code=done.returncode, output=done.stdout, errors=done.stderr)
