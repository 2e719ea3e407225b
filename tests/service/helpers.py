"""A run to begin with, outputs of stages made by hand, and patience."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
from huggingface_hub import HfApi

from config.digests import file_sha256
from config.words import Release
from service.execution.kept import File, Output
from service.release.job import Job
from service.release.way import way
from service.release.work import Work
from service.store import RunOrder, RunRecord, Store

SHA = "0123456789abcdef0123456789abcdef01234567"


def queue_run(store: Store, repo: str = "upstream/model", *, again: bool = False, attempts: int | None = None, **changes: object) -> RunRecord:
    """The queued run of some release; `changes` are fields of its order."""
    return store.enqueue(order(repo, **changes), again=again, attempts=attempts)[0]


def order(repo: str = "upstream/model", **changes: object) -> RunOrder:
    """An order of a run of some release."""
    values = {"release": Release(repo=repo, sha=SHA), "recipe": "default", "recipe_digest": "d" * 64, "namespace": "ours", "trigger": "test"}
    return RunOrder(**{**values, **changes})


def at_work(job: Job, products: Mapping[str, object]) -> Work:
    """A run of which some stages are done, with a Hub that nobody asks."""
    return Work(job=job, api=HfApi(endpoint="http://127.0.0.1:1"), graph=way(job.recipe), products=dict(products))


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process runs."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def output(folder: Path, result: dict[str, object]) -> Output:
    """A stage's output made by hand: its folder holds `files`."""
    files = tuple(File(path=path.name, sha256=file_sha256(path), bytes=path.stat().st_size) for path in sorted((folder / "files").iterdir()) if path.is_file())
    return Output(key=folder.name, folder=folder, result=result, files=files, seconds=0)
