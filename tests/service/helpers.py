"""A run to begin with, and patience."""

import time
from collections.abc import Callable

from config.words import Release
from service.store import RunRecord, Store

SHA = "0123456789abcdef0123456789abcdef01234567"


def queue_run(store: Store, repo: str = "upstream/model", **changes: object) -> RunRecord:
    """The queued run of some release; `changes` are arguments of `Store.enqueue`."""
    values = {"release": Release(repo=repo, sha=SHA), "recipe": "default", "recipe_digest": "d" * 64, "namespace": "ours", "trigger": "test"}
    return store.enqueue(**{**values, **changes})[0]


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
