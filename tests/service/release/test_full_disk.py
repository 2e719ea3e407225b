"""A disk that becomes full at each step of a release in turn: one sentence each time, nothing half-made left, and the run goes on once there is space."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from huggingface_hub import HfApi
from pydantic import SecretStr

from config.errors import HubError, NoSpace, UpstreamError
from config.settings import Settings
from hub.server import running
from hub.tokens import create_token
from service.execution.workbench import Event
from service.hubclient import connect
from service.release.intake import ReleaseRequest, queue_release
from service.release.lifecycle import execute
from service.store import Store, open_store

ROOT = Path(__file__).parents[3]
SIZE = 600  # MB
REPO = "ours/tiny-chat-GGUF"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@dataclass(kw_only=True)
class Disk:
    """A file system of its own, which can be filled to the last byte."""

    place: Path
    filled: set[str] = field(default_factory=set)  # steps at which it was

    def fill(self) -> None:
        with (self.place / "filler").open("ab") as filler:
            if free := shutil.disk_usage(self.place).free:
                os.posix_fallocate(filler.fileno(), filler.tell(), free)
        assert shutil.disk_usage(self.place).free == 0

    def empty(self) -> None:
        (self.place / "filler").unlink(missing_ok=True)

    def at_each_step(self, event: Event) -> None:
        """Fill it when a step is begun that it was not filled at before."""
        if event.state == "started" and event.stage not in self.filled:
            self.filled.add(event.stage)
            self.fill()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}m", "tmpfs", str(place)], check=False, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")
    try:
        yield Disk(place=place)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def settings(disk: Disk, tmp_path: Path) -> Iterator[Settings]:
    """A service whose home is on that disk, and a Hub that is on another one."""
    root = tmp_path / "hub"
    root.mkdir()
    with running(root) as endpoint:
        author = HfApi(endpoint=endpoint, token=create_token(root, user="upstream"))
        author.create_repo("upstream/tiny-chat")
        author.upload_folder(repo_id="upstream/tiny-chat", folder_path=ROOT / "demo" / "model")
        token = SecretStr(create_token(root, user="ours"))
        yield Settings(home=disk.place / "home", hub_endpoint=endpoint, hub_token=token, threads=1)


def recipe(folder: Path) -> Path:
    """The small one for whole runs, with the variant that passes."""
    text = (ROOT / "tests" / "acceptance" / "recipe.yaml").read_text().replace("../../demo", str(ROOT / "demo"))
    found = yaml.safe_load(text)
    found["variants"] = {"sixteen_bit": False, "gguf": ["Q4_K_M"]}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(found))
    return folder / "recipe.yaml"


def released(store: Store, settings: Settings, path: Path, disk: Disk) -> dict[str, str]:
    """Release the model, filling the disk at each step once; what was said, by the step that failed."""
    wanted = ReleaseRequest(repo="upstream/tiny-chat", revision="main", recipe=str(path), trigger="command")
    said: dict[str, str] = {}
    for _ in range(100):
        run = queue_release(store, settings, connect(settings), wanted, again=True)[0]
        leased = store.lease("tests", seconds=3600, run=run.id)
        assert leased is not None
        failed: list[str] = []

        def heard(event: Event, failed: list[str] = failed) -> None:
            if event.state == "failed" and not event.stage.startswith("gates"):
                failed.append(event.stage)
            disk.at_each_step(event)

        with suppress(NoSpace, UpstreamError, HubError):
            execute(store, leased, settings, heard)
        disk.empty()
        ended = store.run(run.id)
        left = [path.name for path in (settings.folder / "working").iterdir() if not path.name.endswith(".partial")]
        assert left == [], f"left by {failed}"
        if ended.state == "done":
            return said
        assert (ended.state, bool(failed)) == ("failed", True), ended.error
        said[failed[-1]] = str(ended.error)
    raise AssertionError("it never came to its end")


def test_a_disk_that_is_full_at_any_step_is_told_and_the_run_goes_on_with_space(disk: Disk, settings: Settings, tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'elsewhere.db'}")
    said = released(store, settings, recipe(tmp_path), disk)
    for step, words in said.items():
        assert re.search(r"the disk is too small|The disk of .* is full", words), f"{step}: {words}"
        assert "Traceback" not in words, f"{step}: {words}"
        assert re.search(r"[Ff]ree some space", words), f"{step}: {words}"
    steps = {step.name for step in store.stages(1)}
    working = {step for step in steps if not step.startswith(("upload ", "publish "))}
    assert len(said) > 0.6 * len(working), f"only {sorted(said)} of {sorted(working)}"
    api = connect(settings)
    assert {ref.name for ref in api.list_repo_refs(REPO).branches} == {"main"}
    assert len(api.list_repo_commits(REPO)) == 2, "the Hub's own and ours"
    assert "tiny-chat-Q4_K_M.gguf" in api.list_repo_files(REPO)
    store.close()
