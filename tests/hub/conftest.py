"""A real Hub on a temporary folder, spoken to by the real client library over HTTP."""

import os

os.environ |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from hub.server import running
from tests.hub.support import Place, Process


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the client library's own LFS upload pass: it hands httpx2 its file in a way that is deprecated there."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes/text content:DeprecationWarning"))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    root = tmp_path / "root"
    with running(root) as url:
        yield Place(root, url)


@pytest.fixture
def ann(place: Place) -> HfApi:
    """The client of a user `ann`, who is in the organization `acme`."""
    return place.api("ann", orgs=("acme",))


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts Hubs in processes of their own; those still alive are ended after the test."""
    started: list[Process] = []

    def start(root: Path = tmp_path / "root", program: str | None = None) -> Process:
        started.append(Process(root, program))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.kill()
