"""Where stages are carried out: each once, under the settings' limits, told to a listener; with or without a run in the database."""

import functools
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from config.digests import content_digest
from config.errors import ConfigurationError, StageError, in_words
from config.progress import Progress, heard_by
from config.settings import Settings
from service.execution.beside import side_by_side
from service.execution.kept import Input, Inputs, Output, StageStore, stage_key
from service.execution.place import HERE, Place, Request
from service.execution.process import Limits, now, run_here
from service.execution.progress import paced
from service.execution.space import with_space
from service.hubclient import within
from service.logs import labelled, redact

Ending = Literal["done", "reused", "failed"]
T = TypeVar("T")
R = TypeVar("R")

_stage: ContextVar[str] = ContextVar("stage", default="")


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that a person watching wants to see."""

    stage: str
    state: Literal["expected", "started", "progressed", "done", "reused", "failed", "remark"]
    seconds: float = 0.0  # since the stage was begun
    message: str = ""
    progress: Progress | None = None  # of one that progressed
    estimate: float | None = None  # of one that is expected or started: the seconds that it will take
    coming: Mapping[str, float | None] = field(default_factory=dict)  # with one that is expected: the stages after it, and their seconds


Listener = Callable[[Event], None]


@dataclass
class Noted:
    """How something ended."""

    state: Ending = "done"
    message: str = ""


@contextmanager
def told(listener: Listener, name: str, *, why: bool = True) -> Iterator[None]:
    """Tell a listener beginning, progress and end of what the block does, as of a stage; `why` says whether of a failure the reason is told as well."""
    started = now()
    listener(Event(stage=name, state="started"))
    try:
        with paced(lambda progress: listener(Event(stage=name, state="progressed", seconds=now() - started, progress=progress))) as hears, heard_by(hears):
            yield
    except Exception as error:
        listener(Event(stage=name, state="failed", seconds=now() - started, message=in_words(error) if why else ""))
        raise
    listener(Event(stage=name, state="done", seconds=now() - started))


@contextmanager
def limited(settings: Settings, name: str) -> Iterator[None]:
    """Around work in this process that asks the Hub: its calls end when it has lasted as long as a stage may. Raises StageError then."""
    minutes = settings.stage_minutes

    def over() -> StageError:
        return StageError(f"{name} was stopped after {minutes:.0f} minutes; raise `stage_minutes` in the settings if it needs longer.")

    with within(minutes * 60, over):
        yield


@contextmanager
def steps_of(stage: str) -> Iterator[None]:
    """What is done in the block, and in threads that it begins, are steps of this stage of a release."""
    before = _stage.set(stage)
    try:
        yield
    finally:
        _stage.reset(before)


@dataclass(kw_only=True)
class Workbench:
    """A stage store with the settings under which its stages run. What else is noted of them is a subclass's business."""

    settings: Settings
    stages: StageStore
    listener: Listener = lambda event: None
    place: Place = HERE
    requests: Mapping[str, Request] = field(default_factory=dict)  # what stages are expected to need of a machine, by name
    estimates: Mapping[str, float] = field(default_factory=dict)  # seconds that stages are expected to take, by name
    promised: Mapping[Path, str] = field(default_factory=dict)  # digests that the operator's data had when this work was ordered
    digests: dict[Path, Input] = field(default_factory=dict)  # of the operator's data, read once
    redo: Container[str] = ()  # stages that are done again although what they made is there
    redone: set[str] = field(default_factory=set)  # keys of those that were

    @property
    def within(self) -> str:
        """The stage of a release at hand; empty outside of one."""
        return _stage.get()

    @property
    def logs(self) -> Path:
        """The folder of the stages' logs."""
        return self.stages.logs / "stages"

    def apart(self, name: str, function: str, inputs: Inputs, /, *, threaded: bool = True, helps: Inputs = MappingProxyType({}), **params: Any) -> Output:
        """The output of a stage function run in a process of its own, or the kept one. Raises the stage's error.

        `threaded`: the function takes a number of threads. It changes the speed, not the work, so it stays out of the key; so do inputs that are given as
        `helps`, which spare work and change nothing of what comes out.
        """
        arguments = {**params, "threads": self.settings.threads} if threaded else params

        def work(workspace: Path) -> dict[str, Any]:
            self._keep_promises(name, inputs)
            return self._run(name, function, workspace, {**inputs, **helps}, arguments)

        with self.place.turn():
            return self._once(name, function, inputs, params, work)

    def tried(self, name: str, function: str, workspace: Path, inputs: Inputs, /, **params: Any) -> dict[str, Any]:
        """The result of a stage function run in a process of its own, in a workspace of which nothing is kept here. Raises the stage's error."""
        with self.place.turn(), with_space(self.stages.working, name):
            return self._run(name, function, workspace, inputs, params)

    def _run(self, name: str, function: str, workspace: Path, inputs: Inputs, params: Mapping[str, Any]) -> dict[str, Any]:
        limits = Limits(
            seconds=self.settings.stage_minutes * 60,
            memory_bytes=None if self.settings.memory_gib is None else int(self.settings.memory_gib * 2**30),
            threads=self.settings.threads,
            request=self.requests.get(name) or self.requests.get(self.within) or Request(),
            silence=self.settings.stuck_minutes * 60,
        )
        return self.place.run(function, workspace, inputs, params, limits=limits, log=self._log(name))

    def each(self, work: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """What the work makes of each item: one after the other, or side by side where the place has room for that. Raises the first error that occurs."""
        return side_by_side(work, items) if self.place.wide and len(items) > 1 else [work(item) for item in items]

    def here(self, name: str, function: Callable[..., dict[str, Any]], params: Mapping[str, Any], /, **arguments: Any) -> Output:
        """The output of a stage that needs the network, run in this process; `params` decide its key, `arguments` come on top."""
        plain = functools.partial(run_here, function, arguments=arguments, log=self._log(name))

        def work(workspace: Path) -> dict[str, Any]:
            with self.limited(name):
                return plain(workspace)

        return self._once(name, f"{function.__module__}:{function.__name__}", {}, params, work, resumes="api" in arguments)

    @contextmanager
    def limited(self, name: str) -> Iterator[None]:
        """See the function of that name."""
        with limited(self.settings, name):
            yield

    def _log(self, name: str) -> Path:
        return self.logs / f"{name.replace(' ', '-')}.log"

    def data(self, path: Path) -> Input:
        """A file or folder of the operator as an input of stages. What was promised of it is believed until a stage has to read it."""
        if path not in self.digests:
            promised = self.promised.get(path)
            self.digests[path] = Input.of(path) if promised is None else Input(path=path, digest=promised)
        return self.digests[path]

    def _keep_promises(self, name: str, inputs: Inputs) -> None:
        """Raise ConfigurationError where the operator's data are other ones than those that the stage's output will stand for."""
        for item in (item for value in inputs.values() for item in ([value] if isinstance(value, Input) else value)):
            if self.promised.get(item.path) == item.digest and not (item.path.exists() and content_digest(item.path) == item.digest):
                raise ConfigurationError(
                    f"{item.path} {'is another one' if item.path.exists() else 'is gone'} since this run was queued, and the stage {name} has to read it. "
                    f"Put back what it held (sha256 {item.digest}), or start a new run with what it holds now."
                )

    def begun(self, name: str, key: str) -> int:
        """Note that a stage was begun; the number to give to `ended`."""
        self.listener(Event(stage=name, state="started", estimate=self.estimates.get(name)))
        return 0

    def found(self, name: str, output: Output, seconds: float) -> None:
        """Note that a stage needs not be done, for its output is there, with what it remarked on."""
        self.listener(Event(stage=name, state="started"))
        self.listener(Event(stage=name, state="reused", seconds=seconds, message=output.result.get("remark") or ""))

    def progressed(self, number: int, name: str, seconds: float, progress: Progress) -> None:
        """Note how far a stage has come so many seconds after it was begun; a few times a second at most, from whichever thread does its work."""
        self.listener(Event(stage=name, state="progressed", seconds=seconds, progress=progress))

    def ended(self, number: int, name: str, state: Ending, seconds: float, *, output: Output | None = None, message: str = "") -> None:
        """Note how a stage ended: with its output and what it remarks on, or failed with a message."""
        self.listener(Event(stage=name, state=state, seconds=seconds, message=message))

    @contextmanager
    def noted(self, name: str, key: str) -> Iterator["Noted"]:
        """Note beginning, progress and end of something that is done here and whose outputs are not kept; the block may say how it ended."""
        started, how = now(), Noted()
        number = self.begun(name, key)
        try:
            with with_space(self.stages.working, name), self._told(number, name, started), self.limited(name):
                yield how
        except Exception as error:
            self.ended(number, name, "failed", now() - started, message=redact(in_words(error)))
            raise
        self.ended(number, name, how.state, now() - started, message=how.message)

    @contextmanager
    def watching(self, workspace: Path) -> Iterator[None]:
        """Around the work of a stage in its workspace."""
        yield

    @contextmanager
    def _told(self, number: int, name: str, started: float) -> Iterator[None]:
        """Note how far the stage has come while the block does its work."""
        with labelled(stage=name, stage_id=number), paced(lambda done: self.progressed(number, name, now() - started, done)) as listener, heard_by(listener):
            yield

    def _once(
        self, name: str, function: str, inputs: Inputs, params: Mapping[str, Any], work: Callable[[Path], dict[str, Any]], *, resumes: bool = False
    ) -> Output:
        key = stage_key(function, inputs, params)
        started = now()
        if key not in self.redone and (name in self.redo or self.within in self.redo):
            self.redone.add(key)
            self.stages.throw_away(key)
        with with_space(self.stages.working, name):
            kept = self.stages.look_up(key)
        if kept is not None:
            self.found(name, kept, now() - started)
            return kept
        number = self.begun(name, key)
        try:
            with with_space(self.stages.working, name), self.stages.workspace(key, resumes=resumes) as workspace, self.watching(workspace):
                # looks at the disk before the workspace is removed, which gives back the space that there was too little of
                with with_space(self.stages.working, name), self._told(number, name, started):
                    result = work(workspace)
                seconds = now() - started
                output = self.stages.keep(key, workspace, {"stage": name, "function": function, "params": dict(params)}, result, seconds)
        except Exception as error:
            self.ended(number, name, "failed", now() - started, message=redact(in_words(error)))
            raise
        self.ended(number, name, "done", seconds, output=output, message=output.result.get("remark") or "")
        return output
