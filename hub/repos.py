"""The repos of a Hub: all that can change about one is a small file, replaced whole, so each change happens or does not."""

import dataclasses
import json
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hub import commits, names
from hub.commits import Commit
from hub.disk import Root, now
from hub.errors import Conflict, RepoNotFound, RevisionNotFound
from hub.names import RepoType
from hub.objects import Objects

MAIN: Final = "refs/heads/main"

# The Hub's own list, and GGUF: files that are stored as LFS files whatever their size.
LFS_PATTERNS: Final = (
    *("*.7z", "*.arrow", "*.bin", "*.bz2", "*.ckpt", "*.ftz", "*.gguf", "*.gz", "*.h5", "*.joblib", "*.lfs.*", "*.mlmodel", "*.model", "*.msgpack"),
    *("*.npy", "*.npz", "*.onnx", "*.ot", "*.parquet", "*.pb", "*.pickle", "*.pkl", "*.pt", "*.pth", "*.rar", "*.safetensors", "*.tar.*", "*.tar"),
    *("*.tflite", "*.tgz", "*.wasm", "*.xz", "*.zip", "*.zst", "*tfevents*"),
)
GIT_ATTRIBUTES: Final = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS)


@dataclass(frozen=True, kw_only=True)
class Discussion:
    """A discussion or a pull request of a repo, with its events in the Hub's own form."""

    num: int
    title: str
    author: str
    status: str  # open, closed, merged or draft
    pull_request: bool
    created_at: str
    base: str  # the ref that a pull request is to be merged into
    events: tuple[Mapping[str, Any], ...] = ()
    merge_commit: str | None = None

    @property
    def ref(self) -> str:
        """The ref that a pull request's commits are on."""
        return f"refs/pr/{self.num}"


@dataclass(frozen=True, kw_only=True)
class Repo:
    """The present state of a repo: everything but its commits, which never change."""

    uid: str
    type: RepoType
    id: str  # namespace/name
    created_at: str
    private: bool = False
    gated: str | bool = False
    refs: Mapping[str, str] = field(default_factory=dict)  # full name of a ref -> commit id
    discussions: tuple[Discussion, ...] = ()
    outbox: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # webhook deliveries that are still owed
    deleted: bool = False

    @property
    def namespace(self) -> str:
        """The user or organization that owns the repo."""
        return self.id.partition("/")[0]

    def with_ref(self, ref: str, commit: str | None) -> "Repo":
        """The same repo with one ref set, or removed."""
        refs = {**self.refs, ref: commit}
        return dataclasses.replace(self, refs={name: target for name, target in refs.items() if target is not None})

    def with_discussion(self, discussion: Discussion) -> "Repo":
        """The same repo with one discussion added or replaced."""
        others = tuple(each for each in self.discussions if each.num != discussion.num)
        return dataclasses.replace(self, discussions=tuple(sorted((*others, discussion), key=lambda each: each.num)))


class Repos:
    """Every repo of a root, in memory and on disk as `repos/<uid>/{state.json, commits/, objects/}`."""

    def __init__(self, root: Root, objects: Objects) -> None:
        self._root, self._objects = root, objects
        self._states: dict[str, Repo] = {}
        self._names: dict[tuple[RepoType, str], str] = {}
        self._locks: dict[str, threading.RLock] = {}
        self._naming = threading.RLock()

    def load(self) -> None:
        """Read every repo, and finish the deletions that a kill interrupted."""
        for folder in (self._root.path / "repos").glob("*"):
            if not (folder / "state.json").exists():  # killed while it was being made
                shutil.rmtree(folder)
                continue
            state = json.loads((folder / "state.json").read_bytes())
            state["discussions"] = tuple(Discussion(**{**each, "events": tuple(each["events"])}) for each in state["discussions"])
            self._remember(Repo(**state))
        for repo in self.all(deleted=True):
            self.forget(repo.uid)

    def all(self, *, deleted: bool = False) -> list[Repo]:
        """Every repo that there is (or, with `deleted`, that still owes a webhook delivery of its deletion)."""
        return [repo for repo in list(self._states.values()) if repo.deleted is deleted]

    def find(self, type: RepoType, identity: str) -> Repo | None:
        """The repo of that name in whatever case, or None: names that differ only in case would collide on the Hub too."""
        uid = self._names.get((type, identity.lower()))
        return self._states.get(uid) if uid else None

    def get(self, uid: str) -> Repo | None:
        """The repo with that internal id, or None."""
        repo = self._states.get(uid)
        return None if repo is None or repo.deleted else repo

    def create(self, *, type: RepoType, identity: str, private: bool, author: str, change: Callable[[Repo], Repo]) -> Repo:
        """Make a repo with the Hub's usual first commit; `change` is applied before anyone sees it. Raises Conflict if the name is taken."""
        repo = Repo(uid=secrets.token_hex(12), type=type, id=identity, created_at=now(), private=private)
        with self._naming:
            if self.find(type, identity):
                raise Conflict(f"You already created this {type} repo: {identity}")
            data = GIT_ATTRIBUTES.encode()
            entry = commits.regular_entry(data, self._objects.add(data))
            self.hold(repo.uid, entry.sha256)
            first = self.save_commit(repo, parent=None, title="initial commit", message="", author=author, tree={".gitattributes": entry})
            repo = change(repo.with_ref(MAIN, first.id))
            self._write(repo)
            self._remember(repo)
        return repo

    def update(self, uid: str, change: Callable[[Repo], Repo]) -> Repo:
        """Replace a repo's state by `change(state)`, under the repo's lock and durably; an exception in `change` leaves all as it was.

        Raises RepoNotFound when the repo was deleted in the meantime.
        """
        with self._locks[uid]:
            old = self.get(uid)
            if old is None:
                raise RepoNotFound("Repository not found")
            return self._replace(old, change(old))

    def rename(self, uid: str, identity: str, change: Callable[[Repo], Repo]) -> Repo:
        """Give a repo another name, with one write. Raises Conflict if the name is taken."""
        with self._naming:
            old = self._states[uid]
            taken = self.find(old.type, identity)
            if taken is not None and taken.uid != uid:
                raise Conflict(f"There is already a {old.type} repo {identity}.")
            return self.update(uid, lambda repo: change(dataclasses.replace(repo, id=identity)))

    def delete(self, uid: str, change: Callable[[Repo], Repo]) -> None:
        """Delete a repo, with one write; its folder goes as soon as nothing has to be told about it any more."""
        with self._naming:
            self.update(uid, lambda repo: dataclasses.replace(change(repo), deleted=True))
        self.forget(uid)

    def forget(self, uid: str) -> None:
        """Remove the folder of a deleted repo that owes no delivery."""
        with self._locks[uid]:
            repo = self._states.get(uid)
            if repo is None or not repo.deleted or repo.outbox:
                return
            del self._states[uid]
            (self._folder(uid) / "state.json").unlink()  # first: a folder without it is taken away at the next start
            shutil.rmtree(self._folder(uid))

    def settle(self, uid: str, delivery: str) -> None:
        """Note that a delivery is owed no more."""
        with self._locks[uid]:
            if uid not in self._states:
                return
            repo = self._states[uid]
            self._replace(repo, dataclasses.replace(repo, outbox={key: owed for key, owed in repo.outbox.items() if key != delivery}))
            self.forget(uid)

    def hold(self, uid: str, sha256: str) -> None:
        """Note that an object was given to this repo, so that its commits may name it."""
        mark = self._folder(uid) / "objects" / sha256
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()

    def holds(self, uid: str, sha256: str) -> bool:
        """Whether an object was given to this repo: knowing the digest of another repo's file does not open it."""
        return (self._folder(uid) / "objects" / sha256).exists() and self._objects.size(sha256) is not None

    def held(self) -> set[str]:
        """The objects that any repo holds."""
        return {mark.name for uid in self._states for mark in (self._folder(uid) / "objects").glob("*")}

    def save_commit(self, repo: Repo, *, parent: str | None, title: str, message: str, author: str, tree: commits.Tree) -> Commit:
        """Write a commit into a repo; it shows once a ref names it."""
        return commits.save(self._root, self.commit_folder(repo.uid), parent=parent, title=title, message=message, author=author, date=now(), tree=tree)

    def commit(self, repo: Repo, identity: str) -> Commit:
        """A commit of the repo by its full id. Raises RevisionNotFound."""
        try:
            return commits.load(self.commit_folder(repo.uid), identity)
        except FileNotFoundError:
            raise RevisionNotFound(f"Invalid rev id: {identity}") from None

    def head(self, repo: Repo, revision: str) -> Commit:
        """The commit that a branch, tag, ref or commit id stands for. Raises RevisionNotFound."""
        if names.is_commit(revision):
            return self.commit(repo, revision)
        return self.commit(repo, repo.refs[full_ref(repo, revision)])

    def history(self, repo: Repo, identity: str) -> Iterator[Commit]:
        """A commit and its ancestors, newest first."""
        return commits.history(self.commit_folder(repo.uid), identity)

    def commit_folder(self, uid: str) -> Path:
        """Where a repo's commits are."""
        return self._folder(uid) / "commits"

    def _folder(self, uid: str) -> Path:
        return self._root.path / "repos" / uid

    def _write(self, repo: Repo) -> None:
        self._root.write(self._folder(repo.uid) / "state.json", json.dumps(dataclasses.asdict(repo), indent=1).encode())

    def _replace(self, old: Repo, new: Repo) -> Repo:
        if new is not old:
            self._write(new)
            self._remember(new)
        return new

    def _remember(self, repo: Repo) -> None:
        old = self._states.get(repo.uid)
        self._locks.setdefault(repo.uid, threading.RLock())
        self._states[repo.uid] = repo
        if not repo.deleted:
            self._names[repo.type, repo.id.lower()] = repo.uid
        # The new name is set before the old one goes, so that a reader without a lock always finds the repo.
        if old is not None and (repo.deleted or old.id.lower() != repo.id.lower()):
            self._names.pop((old.type, old.id.lower()), None)


def full_ref(repo: Repo, revision: str) -> str:
    """The ref that `revision` names: a branch before a tag, or a full name such as `refs/pr/1`. Raises RevisionNotFound."""
    for candidate in (revision, f"refs/heads/{revision}", f"refs/tags/{revision}"):
        if candidate in repo.refs:
            return candidate
    raise RevisionNotFound(f"Invalid rev id: {revision[:100]}")
