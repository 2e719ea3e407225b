"""Stages done once: a stage is a function of its inputs' digests and its parameters; its outputs are kept under that key and looked up the next time.

A finished stage is a folder that was renamed into place with `stage.json` inside, so a folder that is there is whole.
Killing the process anywhere leaves only folders under `working/`, which the next start sweeps.
"""

import ast
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from config.digests import content_digest, file_sha256
from config.errors import HubUnavailable, StageError
from config.sharing import share
from engines import toolchain
from service.execution import words
from service.execution.pins import Pins, closed_gate

_DISCARDED = "discarded-"  # begins the names of working folders that are being removed

RESUMES = "resumes"  # in a working folder whose files are worth having, however its work ends
PARTIAL = ".partial"  # what they are kept under until the same work goes on
PARTIAL_SECONDS = 14 * 86_400  # after which nobody is expected to, and a folder without a lock is nobody's


@dataclass(frozen=True, kw_only=True)
class Input:
    """A file or folder that a stage reads, with the digest that stands for it in the stage's key."""

    path: Path
    digest: str

    @classmethod
    def of(cls, path: Path) -> "Input":
        """An input outside the stage store, e.g. an evaluation text of the operator."""
        return cls(path=path, digest=content_digest(path))


@dataclass(frozen=True, kw_only=True)
class File:
    """One output file of a stage."""

    path: str  # relative to the stage's folder
    sha256: str
    bytes: int
    numbers: str | None = None  # of a GGUF file: the digest of what it computes with, see `engines.gguf_numbers`


@dataclass(frozen=True, kw_only=True)
class Output:
    """What a stage left behind."""

    key: str
    folder: Path
    result: dict[str, Any]
    files: tuple[File, ...]
    seconds: float  # that the work took when it was done

    @property
    def whole(self) -> Input:
        """The folder of all output files."""
        return self.part(lambda path: True)

    def part(self, chosen: Callable[[str], bool]) -> Input:
        """The folder, for a stage that reads none but the chosen files of it: only these decide its key."""
        lines = "".join(f"{file.sha256}  {file.path}\n" for file in self.files if chosen(file.path))
        return Input(path=self.folder / "files", digest=hashlib.sha256(lines.encode()).hexdigest())

    def file(self, path: str | None = None, *, numbers: bool = False) -> Input:
        """One output file; without a name the one that the result calls `file`. `numbers`: for a stage that reads nothing of its header that only describes."""
        name = path or str(self.result["file"])
        found = next(file for file in self.files if file.path == name)
        return Input(path=self.folder / "files" / name, digest=(found.numbers if numbers else None) or found.sha256)


Inputs = Mapping[str, Input | Sequence[Input]]


class StageStore:
    """The folder of finished stages under the service's home."""

    def __init__(self, home: Path, *, reading: bool = False) -> None:
        """The stages under `home`; `reading` changes nothing there: it makes no folder and throws nothing away."""
        self.finished = home / "stages"
        self.working = home / "working"
        self.logs = home / "logs"
        self.blobs = home / "blobs"  # large files by their sha256: what is in several outputs is on the disk once
        self._reading = reading
        self._pins = Pins(home / "pins")
        self._compared: set[tuple[str, int, int]] = set()  # files whose bytes were compared, as they were then
        if not reading:
            for folder in (self.finished, self.working, self.logs, self.blobs):
                folder.mkdir(parents=True, exist_ok=True)
            self._sweep()

    def close(self) -> None:
        """Use no output any more; others may throw them away."""
        self._pins.close()

    def look_up(self, key: str) -> Output | None:
        """The finished stage of that key; None, and what is there of it thrown away, when its record or its files are missing or damaged.

        From then on nobody else throws it away, until `close`. Raises StageError when that cannot be written down, as on a full disk.
        """
        folder = self.finished / key
        if not self._reading:
            try:
                self._pins.add(key)
            except OSError as error:
                raise StageError(words.of_system(error)) from error
        try:
            record = json.loads((folder / "stage.json").read_text(encoding="utf-8"))
            files = tuple(File(**file) for file in record["files"])
            output = Output(key=key, folder=folder, result=record["result"], files=files, seconds=record["seconds"])
            if self._sound(folder, files):
                self._note_use(folder)
                return output
        except (OSError, ValueError, KeyError, TypeError):
            pass  # what is missing or damaged is made again
        if folder.exists() and not self._reading:
            self._discard(folder)
        return None

    def _note_use(self, folder: Path) -> None:
        """As the folder's time of change, which nothing else touches."""
        if not self._reading:
            with suppress(OSError):
                os.utime(folder)

    def set_aside(self, key: str) -> Path | None:
        """Move an output that nobody uses to where it is to be removed; None when somebody uses it."""
        with closed_gate(self._pins.folder) as used:
            return None if key in used else self._aside(self.finished / key)

    def give_up(self, key: str) -> Path:
        """Move partial work to where it is to be removed: whoever would have gone on with it begins anew."""
        return self._aside(self._partial(key))

    def _sound(self, folder: Path, files: Sequence[File]) -> bool:
        """Whether the files are as they were when the stage ended: small ones by their bytes, large ones unless somebody wrote to them since."""
        ended = (folder / "stage.json").stat().st_mtime_ns
        for file in files:
            path = folder / "files" / file.path
            status = path.stat()
            if status.st_size != file.bytes:
                return False
            doubtful = file.bytes <= AFFORDABLE or status.st_mtime_ns > ended
            if doubtful and (file.path, status.st_ino, status.st_mtime_ns) not in self._compared:
                if file_sha256(path) != file.sha256:
                    return False
                self._compared.add((file.path, status.st_ino, status.st_mtime_ns))
        return True

    def throw_away(self, key: str) -> bool:
        """Remove what is kept under a key, so that it is made again; whether there was anything."""
        folder = self.finished / key
        there = folder.exists()
        self._discard(folder)
        return there

    def key_of(self, path: Path) -> str | None:
        """The key under which a file is kept; None when it is no output of a stage."""
        return path.relative_to(self.finished).parts[0] if path.is_relative_to(self.finished) else None

    def _discard(self, folder: Path) -> None:
        """Remove a folder that must not be found again, not even half."""
        shutil.rmtree(self._aside(folder), ignore_errors=True)

    def _aside(self, folder: Path) -> Path:
        """Where a folder lies now that is to be removed: it goes at once, its files may take longer. If its process is killed, the next one sweeps it."""
        away = self.working / f"{_DISCARDED}{uuid.uuid4().hex[:8]}"
        with suppress(FileNotFoundError):  # another process was first
            folder.rename(away)
        return away

    @contextmanager
    def workspace(self, key: str, *, resumes: bool = False) -> Iterator[Path]:
        """A folder to work in, with empty `files/` and `tmp/`; whatever is left of it is removed at the end.

        Where the work `resumes`, `files/` holds what it had when a fault of the moment, or the death of the process, broke it off the last time.
        """
        folder = self.working / f"{key[:16]}-{uuid.uuid4().hex[:8]}"
        lock = folder.with_suffix(".lock")
        with lock.open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            try:
                (folder / "tmp").mkdir(parents=True)
                if resumes:
                    (folder / RESUMES).write_text(key, encoding="utf-8")
                    with suppress(OSError):  # there is none, or another process was first
                        self._partial(key).rename(folder / "files")
                (folder / "files").mkdir(exist_ok=True)
                yield folder
            except HubUnavailable:
                self._set_aside(folder)
                raise
            finally:
                shutil.rmtree(folder, ignore_errors=True)
                lock.unlink(missing_ok=True)

    def keep(self, key: str, workspace: Path, description: Mapping[str, Any], result: dict[str, Any], seconds: float) -> Output:
        """Move the workspace's `files/` into the store, durably and all at once."""
        files = tuple(
            File(path=path.relative_to(workspace / "files").as_posix(), sha256=file_sha256(path), bytes=path.stat().st_size, numbers=_numbers(path))
            for path in sorted((workspace / "files").rglob("*"))
            if path.is_file()
        )
        for item in files:
            share(workspace / "files" / item.path, item.sha256, self.blobs)
        shutil.rmtree(workspace / "tmp")
        (workspace / RESUMES).unlink(missing_ok=True)
        result = json.loads(json.dumps(result, sort_keys=True))  # as it will be read again: what is written from it must not change with the order of its keys
        record = {**description, "key": key, "result": result, "files": [asdict(file) for file in files], "seconds": round(seconds, 3)}
        with (workspace / "stage.json").open("w", encoding="utf-8") as file:
            json.dump(record, file, indent=2, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        try:
            workspace.rename(self.finished / key)
        except OSError:
            # another process finished the same stage first; its outputs are as good as ours
            if (existing := self.look_up(key)) is None:
                raise
            return existing
        return Output(key=key, folder=self.finished / key, result=result, files=files, seconds=record["seconds"])

    def _sweep(self) -> None:
        """Remove what killed processes left behind."""
        for folder in self.working.glob(f"{_DISCARDED}*"):
            shutil.rmtree(folder, ignore_errors=True)
        for lock in self.working.glob("*.lock"):
            with lock.open("w") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue  # its owner is alive
                self._set_aside(lock.with_suffix(""))
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                lock.unlink(missing_ok=True)
        for folder in self.working.iterdir():
            if folder.is_dir() and not folder.with_suffix(".lock").exists():  # partial work, or what could not be removed when its lock was
                with suppress(FileNotFoundError):
                    if time.time() - folder.stat().st_mtime > PARTIAL_SECONDS:
                        shutil.rmtree(folder, ignore_errors=True)

    def _set_aside(self, folder: Path) -> None:
        """Keep the files of a working folder whose work goes on where it broke off."""
        with suppress(OSError):  # it is none of these, or there is such a folder already
            (folder / "files").rename(self._partial((folder / RESUMES).read_text(encoding="utf-8")))

    def _partial(self, key: str) -> Path:
        return self.working / f"{key}{PARTIAL}"


def _numbers(path: Path) -> str | None:
    if path.suffix != ".gguf":
        return None
    from engines import gguf_numbers  # numpy, which most commands need not load

    try:
        return gguf_numbers.digest(path)
    except ValueError:
        return None  # whoever reads it will say what is wrong with it


def stage_key(function: str, inputs: Inputs, params: Mapping[str, Any]) -> str:
    """sha256 over what decides a stage's outputs: function and its version, input digests, parameters, and the llama.cpp in use."""
    digests = {name: value.digest if isinstance(value, Input) else [item.digest for item in value] for name, value in inputs.items()}
    parts = {"function": function, "version": declared_version(function), "inputs": digests, "params": dict(params), "tools": toolchain.version()}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@lru_cache(maxsize=256)
def declared_version(function: str) -> int:
    """The VERSION that a stage's module states, read from its source: importing it would load torch into the service."""
    spec = importlib.util.find_spec(function.partition(":")[0])
    if spec is None or spec.origin is None:
        raise StageError(f"{function} names a module that does not exist")
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(isinstance(target, ast.Name) and target.id == "VERSION" for target in node.targets):
            return int(ast.literal_eval(node.value))
    raise StageError(f"{spec.origin} states no VERSION, so its outputs could not be kept")


AFFORDABLE = 64 * 2**20  # bytes of a file that is compared whenever it is found again: a tenth of a second

FileId = tuple[int, int]
"""Device and inode: what a file is, whatever its names are."""


def blocks(folders: Sequence[Path]) -> dict[FileId, int]:
    """Bytes on disk of every file under these folders; one with several names is there once."""
    found: dict[FileId, int] = {}
    for folder in folders:
        for where, _, names in os.walk(folder):  # which leaves out what is gone again, as working folders are
            for name in names:
                with suppress(FileNotFoundError):
                    status = Path(where, name).stat(follow_symlinks=False)
                    found[status.st_dev, status.st_ino] = status.st_blocks * 512
    return found
