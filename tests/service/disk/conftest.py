"""A home with outputs of runs, made by hand: what matters here is who refers to them."""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from config.errors import HubUnavailable
from config.settings import Settings
from config.words import Hold, Release
from service.execution.kept import StageStore
from service.store import Published, Store
from tests.service.helpers import queue_run

SIZE = 200_000  # bytes of an output


@dataclass(frozen=True, kw_only=True)
class Home:
    """A service's home and its database."""

    settings: Settings
    store: Store

    def output(self, key: str, content: bytes | None = None, stage: str = "convert") -> None:
        """Make an output, unless it is there."""
        stages = StageStore(self.settings.folder)
        if stages.look_up(key) is None:
            with stages.workspace(key) as workspace:
                (workspace / "files" / "model").write_bytes(os.urandom(SIZE) if content is None else content)
                stages.keep(key, workspace, {"stage": stage}, {"file": "model"}, 0.1)
        stages.close()

    def run(self, number: int, keys: dict[str, str], *, state: Any = "done", publish: str | None = None) -> int:
        """A run on the commit of that number, with these outputs by their stages."""
        run = queue_run(self.store, release=Release(repo="upstream/model", sha=f"{number:040}")).id
        self.store.lease("worker", seconds=3600, run=run)
        for stage, key in keys.items():
            self.output(key, stage=stage)
            self.store.stage_finished(self.store.stage_started(run, stage, key), state="done", seconds=0.1)
        if publish is not None:
            self.store.record_publication(run, Published(repo=publish, revision=f"{number:040}", url="", files=(), manifest_digest="m", changed=True))
        if state == "held":
            self.store.record_holds(run, [Hold(subject="licence", reason="There is none.")])
        if state is not None:
            self.store.finish(run, state=state)
        return run

    def broken_off(self, number: int, key: str, *, state: Any) -> int:
        """A run on the commit of that number whose download broke off; None: it waits to go on with it."""
        run = queue_run(self.store, release=Release(repo="upstream/model", sha=f"{number:040}")).id
        leased, stages = self.store.lease("worker", seconds=3600, run=run), StageStore(self.settings.folder)
        assert leased is not None
        step = self.store.stage_started(run, "snapshot", key)
        with suppress(HubUnavailable), stages.workspace(key, resumes=True) as workspace:
            (workspace / "files" / "model").write_bytes(os.urandom(SIZE))
            raise HubUnavailable("The Hub is away.")
        self.store.stage_finished(step, state="failed", seconds=0.1)
        stages.close()
        if state is None:
            self.store.defer(run, leased.lease, error="The Hub is away.", seconds=60)
        else:
            self.store.finish(run, state=state)
        return run

    @property
    def there(self) -> set[str]:
        """Keys of the outputs on the disk."""
        return {path.name for path in (self.settings.folder / "stages").iterdir()}

    def set_aside(self) -> list[Path]:
        """What is being removed."""
        return list((self.settings.folder / "working").iterdir())


@pytest.fixture
def home(tmp_path: Path, store: Store) -> Callable[..., Home]:
    """A home whose settings keep so much."""
    return lambda **keep: Home(settings=Settings(home=tmp_path / "home", keep=keep), store=store)
