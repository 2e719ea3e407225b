"""Headers of GGUF files, whole or in parts, on this machine or on a Hub, of which no more is fetched than they take."""

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from builders.asking import part
from builders.rebuilt.scaling import FACTORS
from config.errors import UpstreamError
from config.words import Release
from engines import gguf_header
from engines.gguf_header import Entry, Header

FIRST = 2**18  # bytes that are fetched at first: what describes the model stands in them
STEP = 8  # times as many are fetched when they were not enough
LARGEST = 2**28  # bytes of a header; one with a million tokens, scores and merges has some 50 MB


def read(folder: Path, paths: Sequence[str]) -> Header:
    """That of the model in these files of a folder, with the factors of its positions. Raises UpstreamError when they cannot be read."""
    return _joined(paths, lambda path: gguf_header.read(folder / path), lambda entry: _piece(folder / entry.file, entry))


def fetch(api: HfApi, release: Release, paths: Sequence[str]) -> Header:
    """That of the model in these files of a release, whose other tensors stay where they are. Raises UpstreamError, HubError."""
    return _joined(paths, lambda path: _fetched(api, release, path), lambda entry: part(api, release.repo, release.sha, entry.file, entry.at, entry.bytes))


def fields(folder: Path, path: str) -> Mapping[str, Any]:
    """The first fields of one file, among them all that describe the model. Raises UpstreamError."""
    try:
        with (folder / path).open("rb") as file:
            return gguf_header.fields(file.read(FIRST))
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error


def fetch_fields(api: HfApi, release: Release, path: str) -> Mapping[str, Any]:
    """The same of a file on the Hub. Raises UpstreamError, HubError."""
    try:
        return gguf_header.fields(part(api, release.repo, release.sha, path, 0, FIRST))
    except ValueError as error:
        raise unreadable(path, error) from error


def unreadable(path: str, error: Exception) -> UpstreamError:
    """What is wrong with a file that is no sound GGUF."""
    return UpstreamError(f"{path} cannot be read as a GGUF file: {error}. It is damaged, or something else; ask its owner to upload it again.")


def _joined(paths: Sequence[str], header: Callable[[str], Header], piece: Callable[[Entry], bytes]) -> Header:
    found = {}
    for path in paths:
        try:
            found[path] = header(path)
        except (OSError, ValueError) as error:
            raise unreadable(path, error) from error
    try:
        whole = gguf_header.joined(found)
        scaled = [entry for entry in whole.tensors if entry.name in FACTORS and entry.type == "F32" and entry.bytes <= FIRST]
        return replace(whole, factors={entry.name: struct.unpack(f"<{entry.bytes // 4}f", piece(entry)) for entry in scaled})
    except (OSError, ValueError, struct.error) as error:
        raise unreadable(paths[0], error) from error


def _piece(path: Path, entry: Entry) -> bytes:
    with path.open("rb") as file:
        file.seek(entry.at)
        return file.read(entry.bytes)


def _fetched(api: HfApi, release: Release, path: str) -> Header:
    count = FIRST
    while True:
        data = part(api, release.repo, release.sha, path, 0, count)
        try:
            return gguf_header.parse(data)
        except gguf_header.Truncated:
            if len(data) < count or count >= LARGEST:
                raise
            count *= STEP
