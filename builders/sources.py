"""Where releases come from, the Hub or a folder of this machine, behind the same few verbs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from huggingface_hub import HfApi

from builders import folder, snapshot
from builders.rebuilt import headers
from builders.snapshot import Upstream
from builders.weights import Tensor
from config.words import Release
from engines.gguf_header import Header


class Source(Protocol):
    """What releases are taken from."""

    @property
    def fetch(self) -> Callable[..., dict[str, Any]]:
        """The function of the stage that takes a release in; its module and name are part of the key of what it makes."""

    def arguments(self, blobs: Path) -> Mapping[str, Any]:
        """What that function is to be given beside the release; `blobs` are files of this machine by their sha256, which need not be fetched."""

    def resolve(self, repo: str, revision: str) -> Upstream:
        """The release that `revision` of `repo` names now. Raises UpstreamError, HubError."""

    def sizes(self, release: Release) -> dict[str, int]:
        """Bytes of every file that is to be taken, by path. Raises UpstreamError, HubError."""

    def headers(self, release: Release, paths: Iterable[str]) -> dict[str, Tensor]:
        """Every tensor in the weight files among `paths`, by name, as their headers tell. Raises UpstreamError, HubError."""

    def gguf_fields(self, release: Release, path: str) -> Mapping[str, Any]:
        """The first fields of a GGUF file's header, which describe the model. Raises UpstreamError, HubError."""

    def gguf_header(self, release: Release, paths: Sequence[str]) -> Header:
        """The header of the GGUF file in these parts. Raises UpstreamError, HubError."""

    def download(self, release: Release, path: str, into: Path) -> Path:
        """One file of the release in the folder `into`; where it lies there. Raises UpstreamError, HubError."""


@dataclass(frozen=True, kw_only=True)
class HubSource:
    """The Hub."""

    api: HfApi

    @property
    def fetch(self) -> Callable[..., dict[str, Any]]:
        """See `Source`."""
        return snapshot.fetch

    def arguments(self, blobs: Path) -> Mapping[str, Any]:
        """See `Source`."""
        return {"api": self.api, "blobs": blobs}

    def resolve(self, repo: str, revision: str) -> Upstream:
        """See `snapshot.resolve`."""
        return snapshot.resolve(self.api, repo, revision)

    def sizes(self, release: Release) -> dict[str, int]:
        """See `snapshot.sizes`."""
        return snapshot.sizes(self.api, release)

    def headers(self, release: Release, paths: Iterable[str]) -> dict[str, Tensor]:
        """See `snapshot.headers`."""
        return snapshot.headers(self.api, release, paths)

    def gguf_fields(self, release: Release, path: str) -> Mapping[str, Any]:
        """See `headers.fetch_fields`."""
        return headers.fetch_fields(self.api, release, path)

    def gguf_header(self, release: Release, paths: Sequence[str]) -> Header:
        """See `headers.fetch`."""
        return headers.fetch(self.api, release, paths)

    def download(self, release: Release, path: str, into: Path) -> Path:
        """See `snapshot.download`."""
        return snapshot.download(self.api, release, path, into)


@dataclass(frozen=True, kw_only=True)
class FolderSource:
    """A folder of this machine, which is one release at a time."""

    folder: Path  # absolute

    @property
    def fetch(self) -> Callable[..., dict[str, Any]]:
        """See `Source`."""
        return folder.fetch

    def arguments(self, blobs: Path) -> Mapping[str, Any]:
        """See `Source`."""
        return {"folder": self.folder}  # whose files may change, so they are copied

    def resolve(self, repo: str, revision: str) -> Upstream:
        """See `folder.resolve`."""
        return folder.resolve(self.folder, repo, revision)

    def sizes(self, release: Release) -> dict[str, int]:
        """See `folder.sizes`."""
        return folder.sizes(self.folder)

    def headers(self, release: Release, paths: Iterable[str]) -> dict[str, Tensor]:
        """See `folder.headers`."""
        return folder.headers(self.folder, paths)

    def gguf_fields(self, release: Release, path: str) -> Mapping[str, Any]:
        """See `headers.fields`."""
        return headers.fields(self.folder, path)

    def gguf_header(self, release: Release, paths: Sequence[str]) -> Header:
        """See `headers.read`."""
        return headers.read(self.folder, paths)

    def download(self, release: Release, path: str, into: Path) -> Path:
        """A copy of the file."""
        folder.copied(self.folder / path, into / path)
        return into / path
