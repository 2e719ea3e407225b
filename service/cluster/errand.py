"""A stage on a node of the cluster: its inputs are fetched from the store, its function runs as on one machine, its outputs are put into the store.

The function's process has neither token nor network, as everywhere; the task around it has what the node's environment gives, and no token of the service.
"""

import os
import queue
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from contextvars import copy_context
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any

from config.digests import file_sha256
from config.errors import NoSpace, SluiceError, StageError, ToolError, in_words
from config.progress import heard_by
from config.sharing import share, take, unused
from engines import toolchain
from service.cluster import versions
from service.execution import log, words
from service.execution.artifacts import ArtifactStore, Lacking
from service.execution.kept import Input, StageStore
from service.execution.leaving import Left, left_by
from service.execution.process import Limits, run_apart
from service.execution.space import with_space

EVERY = 0.2  # seconds between two looks at the log
LOG_PIECE = 65_536  # bytes of the log that are told at once
BLOB_DAYS = 7.0  # that a file stays on a node which nobody used there
FREE = 5_000_000_000  # bytes of the node's disk that such files leave free
# Seconds that the task of a failed stage goes on: a node that goes down ends what Ray's processes have started before these processes, which first send
# their figures off for up to half a second.
SETTLING = 1.5

ENDS = {"done", "failed", "unable", "lacking"}

Message = dict[str, Any]
"""One thing that happened: `begun`, `progress`, `log`, and at the end one of these."""


def carry_out(order: Mapping[str, Any], wanted: Mapping[str, str]) -> Iterator[Message]:
    """Do a stage, and tell what happens meanwhile. It is left when the generator is closed, or interrupted."""
    yield {"begun": socket.gethostname()}
    if wanted != versions.here():
        message = f"The node {socket.gethostname()} cannot carry stages out: {versions.refusal(wanted, order['store'])}."
        yield {"failed": {"type": ToolError.__name__, "message": message}}  # told at once: only a person can cure it
        return
    try:
        yield from _carried_out(order)
    except OSError as error:
        yield {"unable": _of_node(error, order["name"])}


def _carried_out(order: Mapping[str, Any]) -> Iterator[Message]:
    kept = StageStore(toolchain.cache_root() / "node")
    _tidy(kept.blobs)
    with kept.workspace(order["key"]) as workspace:
        errand = _Errand(order=order, workspace=workspace, blobs=kept.blobs)
        thread = Thread(target=copy_context().run, args=(errand.go,), name=order["name"], daemon=True)
        thread.start()
        try:
            yield from errand.told()
        finally:
            errand.over.set()
            thread.join()


@dataclass(frozen=True, kw_only=True)
class _Errand:
    """One stage on this node."""

    order: Mapping[str, Any]
    workspace: Path
    blobs: Path
    over: Event = field(default_factory=Event)  # nobody wants it any more
    said: "queue.SimpleQueue[Message]" = field(default_factory=queue.SimpleQueue)

    @property
    def log(self) -> Path:
        return self.workspace / f"{self.order['name']}.log"

    def told(self) -> Iterator[Message]:
        """What is said, with what the log comes to hold meanwhile."""
        read, message = 0, Message()
        while not message.keys() & ENDS:
            try:
                message = self.said.get(timeout=EVERY)
            except queue.Empty:
                message = {}
            found, read = self._printed(read)
            for begin in range(0, len(found), LOG_PIECE):
                yield {"log": found[begin : begin + LOG_PIECE]}
            if message:
                yield message
            if "failed" in message:
                time.sleep(SETTLING)

    def _printed(self, place: int) -> tuple[bytes, int]:
        """What was printed since that place, and the place behind it."""
        with suppress(FileNotFoundError), self.log.open("rb") as file:
            return log.since(file, place)
        return b"", place

    def go(self) -> None:
        """Do it, and say how it ended: what its function raises is the stage's failure, and whatever else goes wrong is this node's."""
        with left_by(self._asked), heard_by(lambda progress: self.said.put({"progress": asdict(progress)})):
            try:
                end = self._done()
            except Lacking as lacking:
                end = {"lacking": lacking.sha256}
            except BaseException as error:  # noqa: BLE001  the thread's end must be told, or its caller waits for ever
                end = {"unable": _of_node(error, self.order["name"])}
            self.said.put(end)

    def _asked(self, whole: bool) -> None:
        if self.over.is_set():
            raise Left("nobody wants it any more")

    def _done(self) -> Message:
        store = ArtifactStore(self.order["store"], patience=self.order["patience"])
        with self._spacious():
            inputs = {name: [self._fetched(store, item) for item in given] for name, given in self.order["inputs"].items()}
        single: dict[str, Any] = {name: items[0] if name in self.order["single"] else items for name, items in inputs.items()}
        try:
            with self._spacious():
                result = run_apart(self.order["function"], self.workspace, single, self.order["params"], limits=Limits(**self.order["limits"]), log=self.log)
        except NoSpace:
            raise
        except SluiceError as error:
            return {"failed": {"type": type(error).__name__, "message": self._shown(str(error))}}
        files = []
        for path in sorted(path for path in (self.workspace / "files").rglob("*") if path.is_file()):
            sha256 = file_sha256(path)
            store.put(path, sha256)
            share(path, sha256, self.blobs)
            files.append({"path": path.relative_to(self.workspace / "files").as_posix(), "sha256": sha256})
        return {"done": {"result": result, "files": files}}

    def _spacious(self) -> AbstractContextManager[None]:
        return with_space(self.workspace, self.order["name"])

    def _shown(self, message: str) -> str:
        """What is said, with files under the names that they have on the service's machine, which is what a person is told."""
        places = [(str(self._place(item)), item["shown"]) for items in self.order["inputs"].values() for item in items]
        for place, shown in [(str(self.log), self.order["log"]), *places]:
            message = message.replace(place, shown)
        return message

    def _fetched(self, store: ArtifactStore, item: Mapping[str, Any]) -> Input:
        """An input as it is on this node, under the name that it has on the service's machine."""
        place = self._place(item)
        if item["folder"]:
            place.mkdir(parents=True)
        for file in item["files"]:
            target = place / file["path"] if item["folder"] else place
            target.parent.mkdir(parents=True, exist_ok=True)
            if take(target, file["sha256"], self.blobs):
                os.utime(target)  # and so what is kept, of which it is another name, unless that was thrown away meanwhile
            else:
                store.get(file["sha256"], target)
                share(target, file["sha256"], self.blobs)
        return Input(path=place, digest=item["digest"])

    def _place(self, item: Mapping[str, Any]) -> Path:
        return self.workspace / "inputs" / str(item["number"]) / Path(item["shown"]).name


def _of_node(error: BaseException, name: str) -> dict[str, str]:
    """What is wrong with this node, which other nodes need not have, as an error and in words."""
    host, cache = socket.gethostname(), toolchain.cache_root()
    if isinstance(error, NoSpace) or (isinstance(error, OSError) and words.out_of_space(error)):
        free = shutil.disk_usage(cache).free
        said = f"The disk of {cache} on the node {host} is full ({free / 1e6:,.1f} MB are free), so {name} could not be done there. Free some space on it, "
        return {"type": NoSpace.__name__, "message": f"{said}or let SLUICE_CACHE of that node name a folder on a larger disk."}
    kind = type(error).__name__ if isinstance(error, SluiceError) else StageError.__name__
    return {"type": kind, "message": f"The node {host} could not carry it out: {in_words(error)}"}


def _tidy(blobs: Path) -> None:
    """Remove files that nobody used on this node for long, and others as long as its disk is short, the oldest first."""
    for blob in sorted(unused(blobs), key=lambda path: path.stat().st_mtime if path.exists() else 0.0):
        with suppress(FileNotFoundError):
            old = time.time() - blob.stat().st_mtime > BLOB_DAYS * 86_400
            if old or shutil.disk_usage(blobs).free < FREE:
                blob.unlink()
