"""Commits: immutable files that name every file of a repo at one moment, and the pure functions that derive one tree from another."""

import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from hub.disk import Root
from hub.errors import BadRequest, EntryNotFound

POINTER: Final = "version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file of a commit."""

    sha256: str
    size: int  # bytes
    oid: str  # git's id of the blob; for an LFS file, of its pointer
    lfs: bool

    @property
    def etag(self) -> str:
        """What the client library compares to see whether it has the file: the sha256 for LFS files, else git's id."""
        return self.sha256 if self.lfs else self.oid

    @property
    def pointer_size(self) -> int:
        """Bytes of the LFS pointer that a git repository would hold instead of the file."""
        return len(POINTER.format(sha256=self.sha256, size=self.size))


Tree = Mapping[str, Entry]


@dataclass(frozen=True, kw_only=True)
class Commit:
    """A repo at one moment; `id` is the sha1 of everything else in it."""

    id: str
    parent: str | None
    title: str
    message: str
    author: str
    date: str
    tree: Tree


@dataclass(frozen=True)
class Add:
    """Put a file at a path, whatever was there."""

    path: str
    entry: Entry


@dataclass(frozen=True)
class Delete:
    """Remove a file, or a folder with all that is in it."""

    path: str
    folder: bool


Operation = Add | Delete


def git_blob(data: bytes) -> str:
    """Git's id of a blob."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def regular_entry(data: bytes, sha256: str) -> Entry:
    """The entry of a file that git itself would hold."""
    return Entry(sha256=sha256, size=len(data), oid=git_blob(data), lfs=False)


def lfs_entry(sha256: str, size: int) -> Entry:
    """The entry of a file that git would hold as a pointer."""
    return Entry(sha256=sha256, size=size, oid=git_blob(POINTER.format(sha256=sha256, size=size).encode()), lfs=True)


def save(root: Root, folder: Path, *, parent: str | None, title: str, message: str, author: str, date: str, tree: Tree) -> Commit:
    """Write a commit into `folder`. It becomes part of a repo only when a ref names it."""
    record = {
        "parent": parent,
        "title": title,
        "message": message,
        "author": author,
        "date": date,
        "tree": {path: asdict(tree[path]) for path in sorted(tree)},
    }
    data = json.dumps(record, indent=1).encode()
    identity = hashlib.sha1(data, usedforsecurity=False).hexdigest()
    root.write(folder / f"{identity}.json", data)
    return load(folder, identity)


@functools.lru_cache(maxsize=1024)  # a listing reads the newest commit of every repo it shows
def load(folder: Path, identity: str) -> Commit:
    """Read a commit. Raises FileNotFoundError when the repo has none of that id."""
    record = json.loads((folder / f"{identity}.json").read_bytes())
    tree = MappingProxyType({path: Entry(**entry) for path, entry in record.pop("tree").items()})
    return Commit(id=identity, tree=tree, **record)


def history(folder: Path, identity: str | None) -> Iterator[Commit]:
    """A commit and its ancestors, newest first."""
    while identity is not None:
        commit = load(folder, identity)
        yield commit
        identity = commit.parent


def last_commits(folder: Path, identity: str, paths: Iterable[str]) -> dict[str, Commit]:
    """For each file or folder of a commit, the newest commit that changed it or something in it."""
    found: dict[str, Commit] = {}
    waiting = set(paths)
    for commit in history(folder, identity):
        if not waiting:
            break
        before = load(folder, commit.parent).tree if commit.parent else {}
        changed = _with_parents(path for path in {*commit.tree, *before} if commit.tree.get(path) != before.get(path))
        for path in waiting & changed:
            found[path] = commit
        waiting -= changed
    return found


def apply(tree: Tree, operations: Sequence[Operation]) -> dict[str, Entry]:
    """The tree after `operations`, in their order.

    Raises EntryNotFound when something to delete is not there, BadRequest when a file would be inside a file.
    """
    after = dict(tree)
    for operation in operations:
        if isinstance(operation, Add):
            after[operation.path] = operation.entry
            continue
        prefix = operation.path + "/"
        gone = [path for path in after if path.startswith(prefix)] if operation.folder else [operation.path] if operation.path in after else []
        if not gone:
            raise EntryNotFound(f"A {'folder' if operation.folder else 'file'} with this name doesn't exist: {operation.path}")
        for path in gone:
            del after[path]
    if inside := folders(after) & after.keys():
        raise BadRequest(f"{min(inside)!r} cannot be both a file and a folder.")
    return after


def folders(paths: Iterable[str]) -> set[str]:
    """Every folder that the paths of these files go through."""
    found: set[str] = set()
    for path in paths:
        folder = path.rpartition("/")[0]
        while folder and folder not in found:
            found.add(folder)
            folder = folder.rpartition("/")[0]
    return found


def git_trees(tree: Tree) -> dict[str, str]:
    """Git's id of each folder of a tree; the root's key is the empty string."""
    children: dict[str, list[tuple[str, bytes]]] = {folder: [] for folder in ("", *folders(tree))}
    for path, entry in tree.items():
        parent, _, name = path.rpartition("/")
        # Git sorts a folder as if its name ended in a slash; a file's name sorts as it is.
        children[parent].append((name, b"100644 %b\0" % name.encode() + bytes.fromhex(entry.oid)))
    oids: dict[str, str] = {}
    for folder in sorted(children, key=lambda path: (-path.count("/") if path else 1, path)):
        data = b"".join(line for _, line in sorted(children[folder], key=lambda child: child[0].encode()))
        oids[folder] = hashlib.sha1(b"tree %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        if folder:
            parent, _, name = folder.rpartition("/")
            children[parent].append((name + "/", b"40000 %b\0" % name.encode() + bytes.fromhex(oids[folder])))
    return oids


def merge(base: Tree, ours: Tree, theirs: Tree) -> tuple[dict[str, Entry], list[str]]:
    """Three-way merge, file by file: the merged tree, and the paths that both sides changed differently."""
    merged = dict(ours)
    conflicts = []
    for path in sorted({*base, *theirs}):
        old, mine, new = base.get(path), ours.get(path), theirs.get(path)
        if new in (old, mine):
            continue
        if mine != old:
            conflicts.append(path)
        elif new is None:
            merged.pop(path, None)
        else:
            merged[path] = new
    conflicts += sorted(folders(merged) & merged.keys())
    return merged, conflicts


def _with_parents(paths: Iterable[str]) -> set[str]:
    listed = set(paths)
    return listed | folders(listed)
