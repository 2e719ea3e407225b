"""Stages as tasks of the cluster: sent with what they ask of a machine, followed, begun anew elsewhere when their machine is lost, and cancelled."""

import os
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
from config.settings import Settings
from config.sharing import take
from service.cluster import errand, nodes, versions
from service.cluster.nodes import Node
from service.execution.artifacts import ArtifactStore, Lacking
from service.execution.kept import Input, Inputs
from service.execution.leaving import Away, checkpoint
from service.execution.log import Log
from service.execution.process import Limits, now

EVERY = 0.5  # seconds between two looks whether a stage is still wanted
LOOK = 2.0  # seconds for which it is believed which machines there are
LOSSES = 3  # machines that one stage may lose before it is blamed for that
GRACE = 10.0  # seconds that a cancelled task has to end its stage by itself


class _Lost(Exception):
    """The machine of a stage is gone, or what it made is."""


@dataclass(kw_only=True)
class RayPlace:
    """The cluster. For any number of threads."""

    ray: Any
    store: ArtifactStore
    blobs: Path  # large files of this machine by their sha256
    threads: int  # that a stage may use
    patience: float  # seconds that work waits for a machine when there is none
    told: Callable[[str], None]
    wide: bool = True
    _busy: int = 0
    _lock: Lock = field(default_factory=Lock)
    _nodes: tuple[float, list[Node]] = (float("-inf"), [])
    _digests: dict[tuple[str, int, int, int], str] = field(default_factory=dict)
    _there: set[str] = field(default_factory=set)  # what was seen to be in the store

    @classmethod
    def of(cls, settings: Settings, store_url: str, told: Callable[[str], None]) -> "RayPlace":
        """The cluster, its store and its machines having been looked at. Raises ConfigurationError, ClusterUnavailable."""
        store = ArtifactStore(store_url)
        ray = nodes.connected()
        store.check()
        place = cls(ray=ray, store=store, blobs=settings.folder / "blobs", threads=settings.threads, patience=settings.hub_patience, told=told)
        nodes.look_at(ray, place.nodes(), store_url)
        if not nodes.alive(ray):
            raise ClusterUnavailable("The Ray cluster has no node with CPUs. Start one: `ray start --address=THIS_MACHINE:PORT`.")
        return place

    def nodes(self) -> list[Node]:
        """The machines that are alive."""
        since, found = self._nodes
        if now() - since > LOOK:
            found = nodes.alive(self.ray)
            self._nodes = (now(), found)
        return found

    def lanes(self) -> int:
        """As many stages as the machines have room for that use all threads that a stage may."""
        return sum(max(1, node.cpus // self.threads) for node in self.nodes())

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Waits until the machines have room for one more stage."""
        with self._away():
            since = now()
            while not self._taken():
                checkpoint()
                self._some_node(since)
                time.sleep(EVERY / 5)
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

    def _some_node(self, since: float) -> None:
        if not self.nodes() and now() - since > self.patience:
            raise ClusterUnavailable(f"The Ray cluster has had no node with CPUs for {self.patience:.0f} seconds.")

    @contextmanager
    def _away(self) -> Iterator[None]:
        """That the cluster is out of reach is no failure of a stage."""
        try:
            yield
        except ClusterUnavailable as error:
            raise Away(error) from error

    def run(self, function: str, workspace: Path, inputs: Inputs, params: Mapping[str, Any], *, limits: Limits, log: Path) -> dict[str, Any]:
        """What a stage function returns, run on some machine, with its files in `workspace / "files"`. Raises its error, and Away."""
        with self._away(), Log(log) as stream:
            for _ in range(LOSSES):
                options, cpus = self._options(limits, threaded="threads" in params)
                given = {**params, "threads": cpus} if "threads" in params else dict(params)
                bounds = {"seconds": limits.seconds, "memory_bytes": limits.memory_bytes, "threads": cpus}
                order = {"function": function, "params": given, "limits": bounds, "log": str(log), "name": log.stem}
                try:
                    done = self._done(order | self._sent(inputs, workspace.name), options, stream)
                    self._bring(done["files"], workspace / "files")
                except _Lost as lost:
                    said = f"{log.stem}: {lost} It is begun anew."
                    self.told(said)
                    stream.write(f"{said}\n".encode())
                    continue
                result: dict[str, Any] = done["result"]
                return result
        raise StageError(
            f"{function} was begun {LOSSES} times, and each time the machine that it ran on was lost. It may need more memory than the nodes have: "
            f"see their logs, and {log}."
        )

    def _options(self, limits: Limits, *, threaded: bool) -> tuple[dict[str, Any], int]:
        """What the task asks of a machine, no more than one of them has; and the CPUs of that."""
        there = self.nodes()
        gpus = 1 if limits.request.gpu and any(node.gpus for node in there) else 0
        able = [node for node in there if node.gpus >= gpus]
        cpus = min(limits.threads if threaded else 1, max((node.cpus for node in able), default=1))
        memory = min(limits.request.memory, max((node.memory for node in able if node.cpus >= cpus), default=0))
        asked = {"num_cpus": cpus, "num_gpus": gpus, **({"memory": memory} if memory else {})}
        return {**asked, "num_returns": "streaming", "max_retries": 0, "scheduling_strategy": "SPREAD"}, cpus

    def _done(self, order: Mapping[str, Any], options: Mapping[str, Any], log: Log) -> dict[str, Any]:
        """Have an errand done by some machine. Raises the stage's error, or _Lost."""
        stream, ended = self.ray.remote(errand.carry_out).options(**options).remote(order, dict(versions.here())), False
        try:
            for message in self._messages(stream):
                ended = ended or bool(message.keys() & errand.ENDS)  # and tidies up, which is not to be disturbed
                match message:
                    case {"log": piece}:
                        log.write(piece)
                    case {"progress": said}:
                        reports.report(said["done"], said["total"], said["unit"])
                    case {"done": done}:
                        found: dict[str, Any] = done
                        return found
                    case {"failed": failed}:
                        kind: type[SluiceError] = getattr(errors, failed["type"], StageError)
                        raise kind(failed["message"])
                    case {"lacking": sha256}:
                        self._there.discard(sha256)
                        raise _Lost(f"The store lacked its input {sha256}.")
        finally:
            if not ended:
                self._end(stream)
        raise _Lost("Its machine said nothing of its end.")

    def _messages(self, stream: Any) -> Iterator[dict[str, Any]]:
        """What the errand tells. Raises _Lost when its machine is gone."""
        known = self.ray.exceptions
        where, since = "", now()
        while True:
            checkpoint()
            ready, _ = self.ray.wait([stream], timeout=EVERY)
            if not ready:
                if not where:
                    self._some_node(since)
                continue
            try:
                message: dict[str, Any] = self.ray.get(next(stream))
            except StopIteration:
                return
            except known.RayTaskError as error:
                raise StageError(f"A node of the Ray cluster could not carry the stage out: {nodes.said_of(error)}") from error
            except known.RayError as error:
                raise _Lost(f"The node {where or 'that it was given to'} was lost ({type(error).__name__}).") from error
            where = message.get("begun") or where
            yield message

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
        """Have a stage's files on this machine. Raises _Lost when the store does not have them any more."""
        for file in files:
            target = folder / file["path"]
            target.parent.mkdir(parents=True, exist_ok=True)
            self._there.add(file["sha256"])
            if not take(target, file["sha256"], self.blobs):
                try:
                    self.store.get(file["sha256"], target)
                except Lacking as lacking:
                    self._there.discard(file["sha256"])
                    raise _Lost(str(lacking)) from lacking
