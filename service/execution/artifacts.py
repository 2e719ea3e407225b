"""The shared store by which files travel between machines: a folder that all of them see, or a bucket of a server that speaks S3.

A file is kept under the sha256 of its bytes. It is there whole or not at all, and whoever takes it compares what came with that digest.
Every call has a deadline, a transfer one for each piece and a lowest rate: it is made in a thread of its own, and whoever asked waits no longer than that,
whatever fsspec or the file system of a server that hangs goes on waiting for.
"""

import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import IO, Any, TypeVar

from config.aside import begun
from config.errors import ClusterUnavailable, ConfigurationError, SluiceError, StageError
from config.passing import pause
from service.execution import words
from service.execution.leaving import checkpoint

CHUNK = 8 * 2**20  # bytes that are read, and sent, at once
MOST_PARTS = 5000  # that a file is sent in: S3 takes 10,000
CONNECT = 10.0  # seconds for a connection to an S3 server
SILENCE = 30.0  # seconds that such a server may say nothing before it is asked again
TRIES = 2  # of a request, by the client underneath; s3fs makes five of each
ANSWER = 60.0  # seconds that a call may take in all, or a piece of a file beyond what its bytes take
LISTING = 600.0  # seconds for a list of everything
ENDING = 10.0  # seconds for what is tidied up when a transfer fails
LOOK = 0.2  # seconds between two looks whether the work is left
PATIENCE = 300.0  # seconds that a file may take however small it is, or its last piece: the server puts it together then
SLOWEST = 100_000  # bytes a second that a file must reach beyond that
FIRST, LONGEST = 1.0, 30.0  # seconds, at most, until a file is sent or taken once more when the store was out of reach, and between later tries
DAYS = 7.0  # that a file stays: it is on its way, and whoever comes to need it later puts it again
PARTIAL = ".partial"  # ends the name of a file in a folder that is being written
_SCHEMES = ("file://", "s3://")

T = TypeVar("T")


class _Silent(Exception):
    """No answer came in time."""


class Lacking(StageError):
    """The store does not have a file, or has it damaged, which it has no more then."""

    def __init__(self, sha256: str, url: str) -> None:
        super().__init__(f"{url} does not have the file with sha256 {sha256}, or had it damaged.")
        self.sha256 = sha256


class ArtifactStore:
    """Files by their sha256 at a URL: `file:///a/folder` or `s3://bucket/prefix`. Credentials come from the environment only."""

    def __init__(self, url: str, *, patience: float = 0.0, told: Callable[[str], None] = lambda said: None) -> None:
        """`patience`: seconds for which a file is sent or taken again and again while the store is out of reach, of which `told` hears.

        Raises ConfigurationError when the URL is of another kind, or what speaks to it is not installed.
        """
        if not url.startswith(_SCHEMES) or "@" in url:
            raise ConfigurationError(
                "`store_url` must be `file:///a/folder` or `s3://bucket/prefix`, and credentials in the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)."
            )
        from fsspec.core import url_to_fs

        self.url = url.rstrip("/")
        self._local = url.startswith("file://")
        self._patience, self._told = patience, told
        waits = {"connect_timeout": CONNECT, "read_timeout": SILENCE, "retries": {"total_max_attempts": TRIES}}
        try:
            self._files, self._root = url_to_fs(self.url, **({"auto_mkdir": True} if self._local else {"default_block_size": CHUNK, "config_kwargs": waits}))
        except ImportError as error:
            raise ConfigurationError(f"{self.url} cannot be used: {error}. `pip install 'sluice[ray]'` brings what is missing.") from error

    def check(self) -> None:
        """Write a file, read it and remove it. Raises ConfigurationError when that is not permitted, ClusterUnavailable when the store is out of reach."""
        place, content = f"{self._root}/check-{uuid.uuid4().hex}", uuid.uuid4().bytes
        with self._worded("write to"):
            _within(ANSWER, self._files.pipe_file, place, content)
        with self._worded("read what was written to"):
            found = _within(ANSWER, self._files.cat_file, place)
        with self._worded("remove what was written to"):
            _within(ANSWER, self._files.rm_file, place)
        if found != content:
            raise ConfigurationError(f"{self.url} gives back other bytes than were written there. Set `store_url` to a store that keeps them.")

    def has(self, sha256: str) -> bool:
        """Whether a file is there."""
        with self._worded("look into"):
            self._files.invalidate_cache()
            return bool(_within(ANSWER, self._files.exists, self._place(sha256)))

    def put(self, path: Path, sha256: str) -> None:
        """Keep a file under its digest, unless it is there already. Raises StageError when it has other bytes than that, and what `check` raises."""
        self._patiently(partial(self._put, path, sha256))

    def get(self, sha256: str, target: Path) -> None:
        """Write a file to `target`. Raises Lacking when it is not there with these bytes, OSError when `target` has no room for it, and what `check` raises."""
        self._patiently(partial(self._get, sha256, target))

    def _patiently(self, call: Callable[[], None]) -> None:
        """Make a call again and again while the store is out of reach, for as long as the patience lasts; in between the work may be left."""
        since: float | None = None
        for tries in count():
            try:
                call()
            except ClusterUnavailable as error:
                seconds, since = pause(tries, first=FIRST, longest=LONGEST), since or time.monotonic()
                if time.monotonic() + seconds - since > self._patience:
                    raise
                if not tries:
                    self._told(f"{error} It is tried again for {self._patience:,.0f} seconds.")
                _rest(seconds)
            else:
                return

    def _put(self, path: Path, sha256: str) -> None:
        if self.has(sha256):
            return
        with path.open("rb") as source, self._worded("write to"), self._written(self._place(sha256), path.stat().st_size) as target:
            if (found := _copied(source, target, path.stat().st_size)) != sha256:
                raise StageError(f"{path} has other bytes than when it was made (sha256 {sha256}, now {found}). `sluice run … --redo STAGE` makes it again.")

    @contextmanager
    def _written(self, place: str, size: int) -> Iterator[IO[bytes]]:
        """A file of that size to be written, which is there once the block has ended without an error."""
        if self._local:
            target, beside = Path(place), Path(f"{place}.{uuid.uuid4().hex[:8]}{PARTIAL}")
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with beside.open("wb") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                beside.replace(target)
            finally:
                beside.unlink(missing_ok=True)
            return
        target = _within(ANSWER, self._files.open, place, "wb", block_size=_part(size), autocommit=False)
        try:
            yield target
            _within(PATIENCE + _part(size) / SLOWEST, target.close)
            _within(PATIENCE, target.commit)
        except BaseException:
            with suppress(Exception):
                _within(ENDING, target.discard, leaving=False)
            target.closed = True  # or it would send what it was told to discard
            raise

    def _get(self, sha256: str, target: Path) -> None:
        try:
            with (
                self._worded("read"),
                _within(ANSWER, self._files.open, self._place(sha256), "rb", block_size=CHUNK, cache_type="readahead") as source,
                target.open("wb") as file,
            ):
                found = _copied(source, file, source.size)
        except FileNotFoundError as error:
            raise Lacking(sha256, self.url) from error
        if found != sha256:
            target.unlink()
            with self._worded("remove a damaged file from"), suppress(FileNotFoundError):
                _within(ANSWER, self._files.rm_file, self._place(sha256))
            raise Lacking(sha256, self.url)

    def sweep(self, before: datetime) -> int:
        """Remove what was put there before a moment, and return how many files that were; whoever needs one puts it again."""
        with self._worded("look into"):
            self._files.invalidate_cache()
            folder = f"{self._root}/artifacts"
            there = _within(ANSWER, self._files.exists, folder)
            found: dict[str, dict[str, Any]] = _within(LISTING, self._files.find, folder, detail=True) if there else {}
        old = [place for place, about in found.items() if _changed(about) < before]
        with self._worded("remove old files from"):
            for place in old:
                with suppress(FileNotFoundError):
                    _within(ANSWER, self._files.rm_file, place)
        return len(old)

    def _place(self, sha256: str) -> str:
        return f"{self._root}/artifacts/{sha256[:2]}/{sha256}"

    @contextmanager
    def _worded(self, doing: str) -> Iterator[None]:
        """Turn what a file system of fsspec raises into words. Two things of reading stay: that a file is not there, and that there is no room for it here."""
        try:
            yield
        except SluiceError:
            raise
        except FileNotFoundError as error:
            if doing == "read":
                raise
            raise ConfigurationError(f"Cannot {doing} {self.url}: there is no such bucket or folder ({error}). Make it, or correct `store_url`.") from error
        except PermissionError as error:
            advice = (
                "Let this account write there."
                if self._local
                else "Correct the key in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or let it list, read, write and delete objects there."
            )
            raise ConfigurationError(f"Cannot {doing} {self.url}: permission denied ({error}). {advice}") from error
        except NotADirectoryError as error:
            raise ConfigurationError(f"Cannot {doing} {self.url}: it is no folder ({error}). Correct `store_url`.") from error
        except Exception as error:
            if doing == "read" and isinstance(error, OSError) and words.out_of_space(error):
                raise
            if type(error).__name__ in {"NoCredentialsError", "PartialCredentialsError"}:
                raise ConfigurationError(
                    f"Cannot {doing} {self.url}: {error}. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment of the service and of every node."
                ) from error
            hint = " Check the server that the folder is of." if self._local else " Check the network and AWS_ENDPOINT_URL_S3."
            said = str(error) if isinstance(error, _Silent) else f"{type(error).__name__}: {error}"
            raise ClusterUnavailable(f"Cannot {doing} {self.url}: {said}.{hint}") from error


def _within(seconds: float, call: Callable[..., T], *arguments: Any, leaving: bool = True, **named: Any) -> T:
    """What a call returns, or raises. Raises _Silent when that takes longer; in the middle of it the work may be left, unless it is being left already."""
    until, done = time.monotonic() + seconds, begun(partial(call, *arguments, **named), "store")
    while not wait([done], LOOK).done:
        if leaving:
            checkpoint()
        if time.monotonic() >= until:
            raise _Silent(f"no answer came within {seconds:,.0f} seconds")
    return done.result()


def _rest(seconds: float) -> None:
    """Wait, where the work may be left."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        checkpoint()
        time.sleep(min(left, LOOK))


def _part(size: int) -> int:
    """Bytes of the parts in which a file of that size is sent."""
    return max(CHUNK, size // MOST_PARTS + 1)


def _copied(source: IO[bytes], target: IO[bytes], size: int) -> str:
    """Copy so many bytes in pieces, between which the work may be left; the sha256 of the bytes. Raises ClusterUnavailable when that takes too long."""
    digest, longest, began = hashlib.sha256(), PATIENCE + size / SLOWEST, time.monotonic()
    most = ANSWER + 2 * _part(size) / SLOWEST  # a piece ahead is read, and pieces are sent when there is a part of them
    while piece := _within(most, source.read, CHUNK):
        digest.update(piece)
        _within(most, target.write, piece)
        checkpoint()
        if time.monotonic() - began > longest:
            raise ClusterUnavailable(f"The store of `store_url` took longer than {longest:,.0f} seconds for a file of {size:,} bytes. Check the network.")
    return digest.hexdigest()


def _changed(about: dict[str, Any]) -> datetime:
    """When a file was written, as fsspec tells it of folders (seconds) and of buckets (a date)."""
    when = about.get("LastModified") or about.get("mtime")
    return when if isinstance(when, datetime) else datetime.fromtimestamp(float(when or 0), UTC)
