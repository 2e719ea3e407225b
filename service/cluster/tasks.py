"""Stages as tasks of the cluster: sent with what they ask of a machine, followed, begun anew elsewhere when their machine is lost, and cancelled."""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from config import errors
from config import progress as reports
from config.digests import file_sha256
from config.errors import ClusterUnavailable, SluiceError, StageError
from config.passing import pause
from config.settings import Settings
from config.sharing import take
from service.cluster import errand, faults, nodes, versions
from service.cluster.faults import Lost
from service.cluster.nodes import Node
from service.execution.artifacts import ArtifactStore, Lacking
from service.execution.kept import Input, Inputs
from service.execution.leaving import Away, checkpoint
from service.execution.log import Log
from service.execution.process import Limits, now
from service.pulse import pulse

EVERY = 0.5  # seconds between two looks whether a stage is still wanted
LOOK = 2.0  # seconds for which it is believed which machines there are
LOSSES = 3  # machines that one stage may lose before it is blamed for that
AGAIN = 5.0  # seconds until it is begun anew, at most, doubled the second time: what other work took of a node's memory may be free by then
GRACE = 10.0  # seconds that a cancelled task has to end its stage by itself
_UNKNOWN: tuple[float, list[Node]] = (float("-inf"), [])


@dataclass(kw_only=True)
class RayPlace:
    """The cluster. For any number of threads."""

    ray: Any
    store: ArtifactStore
    blobs: Path  # large files of this machine by their sha256
    threads: int  # that a stage may use
    patience: float  # seconds that work waits for a machine when there is none, and for the store when it is out of reach
    told: Callable[[str], None]
    wide: bool = True
    _busy: int = 0
    _lock: Lock = field(default_factory=Lock)
    _nodes: tuple[float, list[Node]] = _UNKNOWN
    _without: float | None = None  # since when there has been no machine
    _digests: dict[tuple[str, int, int, int], str] = field(default_factory=dict)
    _there: set[str] = field(default_factory=set)  # what was seen to be in the store

    @classmethod
    def of(cls, settings: Settings, store_url: str, told: Callable[[str], None]) -> "RayPlace":
        """The cluster, its store and its machines having been looked at. Raises ConfigurationError, ClusterUnavailable."""
        patience = settings.hub_patience
        store = ArtifactStore(store_url, patience=patience, told=told)
        ray = nodes.connected()
        store.check()
        nodes.look_at(ray, nodes.alive(ray), store_url)
        if not nodes.alive(ray):
            raise ClusterUnavailable("The Ray cluster has no node with CPUs. Start one: `ray start --address=THIS_MACHINE:PORT`.")
        return cls(ray=ray, store=store, blobs=settings.folder / "blobs", threads=settings.threads, patience=patience, told=told)

    def nodes(self) -> list[Node]:
        """The machines that are alive; none as long as the cluster does not say. Raises ClusterUnavailable when there has been none for all the patience."""
        since, found = self._nodes
        if now() - since > LOOK:
            why = f"The Ray cluster has had no node with CPUs for {self.patience:.0f} seconds."
            try:
                found = nodes.alive(self.ray)
            except ClusterUnavailable as error:
                found, why = [], str(error)
            self._nodes = (now(), found)
            without = self._without = None if found else self._without or now()
            if without is not None and now() - without > self.patience:
                raise ClusterUnavailable(why)
        return found

    def lanes(self) -> int:
        """As many stages as the machines have room for that use all threads that a stage may."""
        return sum(max(1, node.cpus // self.threads) for node in self.nodes())

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Waits until the machines have room for one more stage."""
        with self._away():
            while not self._taken():
                self._wait(EVERY / 5)
        try:
            yield
        finally:
            with self._lock:
                self._busy -= 1

    def _taken(self) -> bool:
        lanes = self.lanes()
        with self._lock:
            free = self._busy < lanes
            self._busy += free
        return free

    def _wait(self, seconds: float) -> None:
        """Wait, where the work may be left. That a run waits for a machine is no silence: nothing of it hangs, and a restart would not help."""
        until = now() + seconds
        while (left := until - now()) > 0:
            checkpoint()
            pulse.beat("worker", "waits for the cluster")
            time.sleep(min(left, EVERY))

    @contextmanager
    def _away(self) -> Iterator[None]:
        """That the cluster is out of reach is no failure of a stage."""
        try:
            yield
        except ClusterUnavailable as error:
            raise Away(error) from error

    def run(self, function: str, workspace: Path, inputs: Inputs, params: Mapping[str, Any], *, limits: Limits, log: Path) -> dict[str, Any]:
        """What a stage function returns, run on some machine, with its files in `workspace / "files"`. Raises its error, and Away."""
        losses = 0
        reason: SluiceError | None = None
        with self._away(), Log(log) as stream:
            while losses < LOSSES:
                options, cpus = self._options(limits, threaded="threads" in params)
                given = {**params, "threads": cpus} if "threads" in params else dict(params)
                bounds = {"seconds": limits.seconds, "silence": limits.silence, "memory_bytes": limits.memory_bytes, "threads": cpus}
                order = {"function": function, "params": given, "limits": bounds, "log": str(log), "name": log.stem}
                try:
                    done = self._done(order | self._sent(inputs, workspace.name), options, stream)
                    self._bring(done["files"], workspace / "files")
                except Lost as lost:
                    losses, reason, self._nodes = losses + lost.counts, lost.reason, _UNKNOWN
                    said = f"{log.stem}: {lost} It is begun anew." if losses < LOSSES else f"{log.stem}: {lost}"
                    self.told(said)
                    stream.write(f"{said}\n".encode())
                    if 0 < losses < LOSSES:
                        self._wait(pause(losses - 1, first=AGAIN))
                    continue
                result: dict[str, Any] = done["result"]
                return result
            raise reason or StageError(
                f"{function} was begun {LOSSES} times, and each time the machine that it ran on was lost. It may need more memory than the nodes have: "
                f"see their logs, and {log}."
            )

    def _options(self, limits: Limits, *, threaded: bool) -> tuple[dict[str, Any], int]:
        """What the task asks of a machine, no more than one of them has, as soon as there is one; and the CPUs of that."""
        while not (there := self.nodes()):
            self._wait(EVERY)
        gpus = 1 if limits.request.gpu and any(node.gpus for node in there) else 0
        able = [node for node in there if node.gpus >= gpus]
        cpus = min(limits.threads if threaded else 1, max(node.cpus for node in able))
        memory = min(limits.request.memory, max(node.memory for node in able if node.cpus >= cpus))
        asked = {"num_cpus": cpus, "num_gpus": gpus, **({"memory": memory} if memory else {})}
        return {**asked, "num_returns": "streaming", "max_retries": 0, "scheduling_strategy": "SPREAD"}, cpus

    def _done(self, order: Mapping[str, Any], options: Mapping[str, Any], log: Log) -> dict[str, Any]:
        """Have an errand done by some machine. Raises the stage's error, or Lost."""
        stream, ended = self._begun(order, options), False
        failed: SluiceError | None = None
        try:
            for message in self._messages(stream, options):
                ended = ended or bool(message.keys() & errand.ENDS)  # and tidies up, which is not to be disturbed
                match message:
                    case {"log": piece}:
                        log.write(piece)
                    case {"progress": said}:
                        reports.report(said["done"], said["total"], said["unit"])
                    case {"done": done}:
                        found: dict[str, Any] = done
                        return found
                    case {"failed": said}:
                        failed = _error(said)  # believed when the task has ended in order: a machine that goes down ends the stage first
                    case {"unable": said}:
                        raise Lost(said["message"], _error(said))
                    case {"lacking": sha256}:
                        raise self._lacking(f"The store lacked its input {sha256}.", sha256)
        finally:
            if not ended:
                self._end(stream)
        raise failed or Lost("Its machine said nothing of its end.")

    def _begun(self, order: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
        try:
            return self.ray.remote(errand.carry_out).options(**options).remote(order, dict(versions.here()))
        except self.ray.exceptions.RayError as error:
            raise faults.of_ray(self.ray, error, "") from error

    def _messages(self, stream: Any, options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """What the errand tells. Raises Lost when its machine is gone, or when none is left that has what its task asks for."""
        where = ""
        while True:
            checkpoint()
            try:
                ready, _ = self.ray.wait([stream], timeout=EVERY)
                message: dict[str, Any] | None = self.ray.get(next(stream)) if ready else None
            except StopIteration:
                return
            except self.ray.exceptions.RayError as error:
                raise faults.of_ray(self.ray, error, where) from error
            if message is not None:
                where = message.get("begun") or where
                yield message
            elif not where:
                self._look_out(options)

    def _look_out(self, options: Mapping[str, Any]) -> None:
        """While a task waits for a machine: raises Lost where those that there were when it asked for one are gone, and it would wait for ever."""
        pulse.beat("worker", "waits for the cluster")
        there = self.nodes()
        if there and not any(
            node.cpus >= options["num_cpus"] and node.gpus >= options["num_gpus"] and node.memory >= options.get("memory", 0) for node in there
        ):
            raise Lost("No node is left that has what it asks for.", counts=False)

    def _lacking(self, said: str, sha256: str) -> Lost:
        """Where the store lacks a file. Whatever took it may have taken others, so each is looked for anew."""
        self._there.clear()
        reason = f"{self.store.url} does not keep what is put there, the last time the file with sha256 {sha256}. See what else removes or changes files there."
        return Lost(said, ClusterUnavailable(reason))

    def _end(self, stream: Any) -> None:
        """See to it that the errand is not at work any more."""
        with suppress(self.ray.exceptions.RayError, ValueError, TypeError):
            self.ray.cancel(stream)
            if not self.ray.wait([stream.completed()], timeout=GRACE)[0]:
                self.ray.cancel(stream, force=True)

    def _sent(self, inputs: Inputs, key: str) -> dict[str, Any]:
        """Inputs as an order has them, their files being in the store."""
        many = {name: [value] if isinstance(value, Input) else list(value) for name, value in inputs.items()}
        count = iter(range(sum(map(len, many.values()))))
        described = {name: [self._described(item, next(count)) for item in items] for name, items in many.items()}
        return {
            "inputs": described,
            "single": [name for name, value in inputs.items() if isinstance(value, Input)],
            "store": self.store.url,
            "patience": self.patience,
            "key": key,
        }

    def _described(self, item: Input, number: int) -> dict[str, Any]:
        folder = item.path.is_dir()
        paths: Sequence[Path] = sorted(path for path in item.path.rglob("*") if path.is_file() and not path.is_symlink()) if folder else [item.path]
        files = []
        for path in paths:
            sha256 = self._digest(path)
            if sha256 not in self._there:
                self.store.put(path, sha256)
                self._there.add(sha256)
            files.append({"path": path.relative_to(item.path).as_posix(), "sha256": sha256})
        return {"number": number, "folder": folder, "shown": str(item.path.absolute()), "digest": item.digest, "files": files}

    def _digest(self, path: Path) -> str:
        """sha256 of a file, read once unless it changes."""
        status = path.stat()
        which = (os.fspath(path), status.st_ino, status.st_size, status.st_mtime_ns)
        if which not in self._digests:
            self._digests[which] = file_sha256(path)
        return self._digests[which]

    def _bring(self, files: Sequence[Mapping[str, str]], folder: Path) -> None:
        """Have a stage's files on this machine. Raises Lost when the store does not have them any more."""
        for file in files:
            target = folder / file["path"]
            target.parent.mkdir(parents=True, exist_ok=True)
            self._there.add(file["sha256"])
            if not take(target, file["sha256"], self.blobs):
                try:
                    self.store.get(file["sha256"], target)
                except Lacking as lacking:
                    shutil.rmtree(folder)  # what comes of another time may be other files, and must not be written into these, which are others' too
                    folder.mkdir()
                    raise self._lacking(str(lacking), lacking.sha256) from lacking


def _error(said: Mapping[str, str]) -> SluiceError:
    """The error of which an errand tells."""
    kind: type[SluiceError] = getattr(errors, said["type"], StageError)
    return kind(said["message"])
