"""A run being carried out: does its stages once, records each in the database, tells a listener, and watches the disk."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from config.errors import in_words
from config.recipe import Recipe
from config.settings import Settings
from config.words import Outcome, Variant, Verdict, Waiver
from service.stages import Input, Inputs, Limits, Output, StageStore, disk_usage, now, run_apart, run_here, stage_key
from service.store import Artifact, RunRecord, Store

DISK_SAMPLE = 0.5  # seconds between two looks at the disk


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that a person watching the run wants to see."""

    stage: str
    state: Literal["started", "done", "reused", "failed"]
    seconds: float = 0.0
    message: str = ""


Listener = Callable[[Event], None]


@dataclass(kw_only=True)
class Job:
    """One run of one recipe on one release, with everything its stages need."""

    store: Store
    run: RunRecord
    recipe: Recipe
    settings: Settings
    stages: StageStore
    listener: Listener = lambda event: None
    digests: dict[Path, Input] = field(default_factory=dict)  # of the operator's data, read once a run
    used: list[Path] = field(default_factory=list)  # folders of this run's stages, for the disk figure
    disk_high_water: int = 0

    def apart(self, name: str, function: str, inputs: Inputs, /, *, threaded: bool = True, **params: Any) -> Output:
        """The output of a stage function run in a process of its own, or the kept one. Raises the stage's error.

        `threaded`: the function takes a number of threads. It changes the speed, not the work, so it stays out of the key.
        """
        limits = Limits(
            seconds=self.settings.stage_minutes * 60,
            memory_bytes=None if self.settings.memory_gib is None else int(self.settings.memory_gib * 2**30),
            threads=self.settings.threads,
        )
        log = self.stages.logs / f"run-{self.run.id}" / f"{name.replace(' ', '-')}.log"
        arguments = {**params, "threads": limits.threads} if threaded else params
        return self._once(name, function, inputs, params, lambda workspace: run_apart(function, workspace, inputs, arguments, limits=limits, log=log))

    def here(self, name: str, function: Callable[..., dict[str, Any]], params: Mapping[str, Any], /, **arguments: Any) -> Output:
        """The output of a stage that needs the network, run in this process; `params` decide its key, `arguments` come on top."""
        return self._once(name, f"{function.__module__}:{function.__name__}", {}, params, lambda workspace: run_here(function, workspace, arguments))

    @cached_property
    def waivers(self) -> tuple[Waiver, ...]:
        """The run's waivers as they were when it was first asked for them: one run judges all its variants by the same."""
        return tuple(item.waiver for item in self.store.waivers(self.run.id))

    def data(self, path: Path) -> Input:
        """A file or folder of the operator as an input of stages."""
        if path not in self.digests:
            self.digests[path] = Input.of(path)
        return self.digests[path]

    def verdict(self, variant: Variant, verdict: Verdict) -> None:
        """Tell the listener how a variant came out."""
        state: Literal["done", "failed"] = "done" if verdict.outcome is Outcome.PASSED else "failed"
        waived = [f"The gate {item.gate} is waived by {item.by}." for item in verdict.waivers]
        self.listener(Event(stage=f"gates {variant.tag}", state=state, message=" ".join([*verdict.reasons, *waived])))

    def _once(self, name: str, function: str, inputs: Inputs, params: Mapping[str, Any], work: Callable[[Path], dict[str, Any]]) -> Output:
        key = stage_key(function, inputs, params)
        started = now()
        record = self.store.stage_started(self.run.id, name, key)
        self.listener(Event(stage=name, state="started"))
        if (kept := self.stages.look_up(key)) is not None:
            self._finish(record, name, "reused", now() - started, kept)
            return kept
        try:
            with self.stages.workspace(key) as workspace, self._watching(workspace):
                result = work(workspace)
                seconds = now() - started
                output = self.stages.keep(key, workspace, {"stage": name, "function": function, "params": dict(params)}, result, seconds)
        except Exception as error:
            reason = in_words(error)
            self.store.stage_finished(record, state="failed", seconds=now() - started, error=reason)
            self.listener(Event(stage=name, state="failed", seconds=now() - started, message=reason))
            raise
        self._finish(record, name, "done", seconds, output)
        return output

    def _finish(self, record: int, name: str, state: Literal["done", "reused"], seconds: float, output: Output) -> None:
        artifacts = tuple(Artifact(name=file.path, sha256=file.sha256, bytes=file.bytes) for file in output.files)
        self.store.stage_finished(record, state=state, seconds=seconds, artifacts=artifacts)
        self.used.append(output.folder)
        self._sample(())
        self.listener(Event(stage=name, state=state, seconds=seconds))

    def _sample(self, extra: tuple[Path, ...]) -> None:
        self.disk_high_water = max(self.disk_high_water, disk_usage([*self.used, *extra]))

    @contextmanager
    def _watching(self, workspace: Path) -> Iterator[None]:
        """Sample the disk while a stage works, since its temporary files may be its largest."""
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(DISK_SAMPLE):
                self._sample((workspace,))

        watcher = threading.Thread(target=watch, name="disk", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()
