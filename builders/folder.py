"""Takes a release from a folder of this machine: the same files as from the Hub, checked alike, under a commit that their content decides.

The folder stays its owner's. What is kept of it is a copy, which shares the folder's blocks where the file system can, and never a hard link, so that
the folder may be changed afterwards; another content is another release.
"""

import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from builders import front_matter, vectors
from builders.adapters.description import Adapter, read
from builders.asking import require_room
from builders.names import ADAPTER, INDEX, is_legal, is_lost, is_named_template, listed_in, loads
from builders.snapshot import LARGEST_INDEX, Upstream, choose, described, in_gguf, lost, weight_map_in
from builders.weights import Tensor, read_header
from config.copying import copy, hashed
from config.errors import ConfigurationError, UpstreamError
from config.progress import Tally
from config.settings import REPO_ID
from config.words import Release

VERSION = 3  # raise when outputs change

PRESENT = "main"  # the revision that stands for the content as it is now
SETTLED = 2 * 10**9  # nanoseconds since a file last changed, after which a further change is sure to show in its times

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_known: dict[Path, tuple[tuple[int, ...], str]] = {}  # sha256 of files that this process has read, by what tells whether they changed since


def legal_name(text: str) -> str:
    """A folder's name as that of a repo. Raises ConfigurationError when nothing of it can be."""
    made = re.sub(r"-{2,}", "-", re.sub(r"\.{2,}", ".", re.sub(r"[^A-Za-z0-9._-]+", "-", text))).strip("._-")[:80].rstrip("._-")
    return checked_name(made.removesuffix(".git"))


def checked_name(name: str) -> str:
    """`name` itself when repos may be called so. Raises ConfigurationError."""
    if not _NAME.fullmatch(name) or "--" in name or ".." in name or name.endswith((".", "-", ".git")):
        raise ConfigurationError(
            f"{name!r} cannot be the name of a release: it is made of letters, digits, `.`, `_` and `-`, begins with a letter or digit, and holds "
            "neither `--` nor `..`. Give another one with --name."
        )
    return name


def resolve(folder: Path, name: str, revision: str) -> Upstream:
    """The release that the folder holds now, called `name`; every file that it consists of is read, and the bytes are reported.

    Raises UpstreamError when it is no whole model, or when `revision` is the commit that it was and it is another one by now.
    """
    wanted = sizes(folder)
    tally = Tally(sum(wanted.values()), "bytes")
    sha = commit({path: _sha256(folder / path, tally.add) for path in wanted} | _below(folder, wanted))
    if revision not in {PRESENT, sha}:
        raise _changed(folder)
    found = described(Release(repo=name, sha=sha), front_matter.read(folder / front_matter.CARD))
    listed = listing(folder)
    return replace(found, adapter=ADAPTER in wanted, lost=lost(listed), **in_gguf(listed, str(folder)))


def commit(digests: Mapping[str, str]) -> str:
    """What stands for a commit: the first 40 hex digits of the sha256 over sha256 and path of each file, in the order of the paths."""
    lines = "".join(f"{digest}  {path}\n" for path, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:40]


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of the files that the release consists of, by path; below the top only GGUF files, terms and named templates. Raises UpstreamError."""
    return {path: _size(folder / path) for path in _chosen(folder, listing(folder), _size)}


def loaded(folder: Path) -> tuple[str, ...]:
    """What of the release a program reads, and its card, for who keeps nothing of it: links may lead out of the folder. Raises UpstreamError."""
    chosen = _chosen(folder, [name for name in listing(folder) if (folder / name).is_file()], lambda path: path.stat().st_size)
    return tuple(sorted(filter(loads, chosen)))


def _chosen(folder: Path, listed: Collection[str], size: Callable[[Path], int]) -> tuple[str, ...]:
    def weight_map() -> object:
        if size(folder / INDEX) > LARGEST_INDEX:
            raise UpstreamError(f"{folder / INDEX} is larger than that of any model. It is damaged, or something else.")
        return weight_map_in(folder / INDEX, str(folder))

    if said := vectors.refusal(listed, front_matter.read(folder / front_matter.CARD), str(folder)):
        raise UpstreamError(said)
    return choose(listed, str(folder), weight_map)


def listing(folder: Path) -> list[str]:
    """What is at the top, and below terms, named templates, and GGUF files of the folders at the top, where publishers keep parts. Raises UpstreamError."""
    try:
        found = listed_in(folder)
    except OSError as error:
        raise _unreadable(folder, error) from error
    return [
        name
        for name in found
        if "/" not in name or is_legal(name) or is_lost(name) or is_named_template(name) or (name.endswith(".gguf") and name.count("/") == 1)
    ]


def headers(folder: Path, paths: Iterable[str]) -> dict[str, Tensor]:
    """Every tensor by name, from the headers of the weight files among `paths`. Raises UpstreamError."""
    return {tensor.name: tensor for path in paths if path.endswith(".safetensors") for tensor in read_header(folder / path)}


def fetch(out: Path, *, folder: Path, release: Release) -> dict[str, Any]:
    """Take the release into `out`. Returns `files`, a list of `{path, bytes, sha256}`, and `total` in bytes.

    Raises UpstreamError when the folder is not what the release says any more, is no whole model, or the disk is too small.
    """
    wanted = sizes(folder)
    total = sum(wanted.values())
    require_room(out, total, f"{release.repo} has {total / 1e9:.2f} GB, which are copied")
    tally = Tally(total, "bytes")
    for path in wanted:
        (out / path).parent.mkdir(parents=True, exist_ok=True)
    digests = {path: copied(folder / path, out / path, tally.add) for path in sorted(wanted)}
    if commit(digests | _below(folder, wanted)) != release.sha:
        raise _changed(folder)
    for path in sorted(wanted):
        if path.endswith(".safetensors"):
            read_header(out / path)
    return {"files": [{"path": path, "bytes": (out / path).stat().st_size, "sha256": digest} for path, digest in digests.items()], "total": total}


def base_folder(folder: Path, adapter: Adapter) -> Path | None:
    """Where the base of the adapter in a folder is on this machine; None where its name means a repo. Raises UpstreamError when it is not there."""
    named = Path(adapter.base).expanduser()
    there = (folder / named).resolve()
    if there.is_dir() and there != folder:
        return there
    if re.fullmatch(REPO_ID, adapter.base) is None:
        raise UpstreamError(
            f"{folder / ADAPTER} names {adapter.base[:200]!r} as the base model (`base_model_name_or_path`), and there is no such folder and no repo of such a "
            "name. Write the path of the base model's folder, seen from the adapter's, or owner/name of its repo on the Hub."
        )
    return None


def _below(folder: Path, wanted: Collection[str]) -> dict[str, str]:
    """What a base on this machine adds to the content of an adapter: another base makes another release of it."""
    if ADAPTER not in wanted:
        return {}
    base = base_folder(folder, read(folder / ADAPTER, str(folder)))
    return {} if base is None else {"base model": resolve(base, legal_name(base.name), PRESENT).release.sha}


def copied(source: Path, target: Path, heard: Callable[[int], None] = lambda count: None) -> str:
    """Copy a file of the folder; its digest. Raises UpstreamError."""
    try:
        return copy(source, target, heard)
    except OSError as error:
        raise UpstreamError(
            f"{source} cannot be copied to {target.parent}: {_reason(error)}. Check that the file is there and yours to read, and that the disk has room."
        ) from error


def laid(folder: Path, into: Path, names: Iterable[str]) -> None:
    """Copies of a model's small files, through the links that a folder of the Hub's cache consists of, and links to its weights, which nobody writes to.

    Raises UpstreamError.
    """
    for name in names:
        (into / name).parent.mkdir(exist_ok=True)
        if name.endswith(".safetensors"):
            (into / name).symlink_to((folder / name).resolve())
        else:
            copied((folder / name).resolve(), into / name)


def _size(path: Path) -> int:
    """The bytes of a file in the folder. Raises UpstreamError when it is no plain file there."""
    try:
        if path.is_symlink() and path.parent.resolve() not in path.resolve(strict=True).parents:
            raise UpstreamError(
                f"{path} is a link that leads out of the folder, as in the Hub client's cache. Name the repo instead, or copy the folder with `cp -rL`."
            )
        found = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(found.st_mode):
        raise UpstreamError(f"{path} is not a plain file, so it is not read. Put the file itself there.")
    return found.st_size


def _sha256(path: Path, heard: Callable[[int], None]) -> str:
    """The file's digest; of one that this process has read, and that has not changed since, without reading it again."""
    began, before = time.time_ns(), _stamp(path)
    known = _known.get(path)
    if known is not None and known[0] == before:
        heard(before[2])
        return known[1]
    try:
        digest = hashed(path, heard)
    except OSError as error:
        raise _unreadable(path, error) from error
    if _stamp(path) != before:
        raise UpstreamError(f"{path} changed while it was read. Wait until nothing writes to the folder any more, then start again.")
    if began - max(before[3:]) > SETTLED:
        _known[path] = (before, digest)
    return digest


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes when a file does; the last one cannot be set by anybody."""
    try:
        found = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _changed(folder: Path) -> UpstreamError:
    return UpstreamError(
        f"{folder} has changed since the run was queued, so it is another release by now. Start `sluice release {folder}` again; "
        "or put back what it held, and the run goes on."
    )


def _unreadable(path: Path, error: OSError) -> UpstreamError:
    return UpstreamError(f"{error.filename or path} cannot be read: {_reason(error)}. Check that it is there and yours to read.")


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)
