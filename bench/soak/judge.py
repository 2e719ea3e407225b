"""What must be true of everything that was ever published, whatever happened meanwhile: read from the Hub itself, commit by commit."""

import hashlib
from dataclasses import dataclass, field
from itertools import pairwise

from huggingface_hub import HfApi, HfFileSystem
from huggingface_hub.hf_api import RepoFile

from publishers.manifest import Manifest
from publishers.naming import MANIFEST

BESIDE = {".gitattributes", MANIFEST}  # what a repo holds besides the files that its manifest lists


@dataclass(frozen=True, kw_only=True)
class Publication:
    """One commit of a repo's default branch that holds a manifest."""

    commit: str
    upstream: str  # the release's commit
    position: int  # of that commit in the history of its repo


@dataclass
class Judge:
    """Looks at the repos of a namespace, and of those called after it with a number, again and again; each commit is looked at once."""

    api: HfApi
    namespace: str
    known: dict[str, Publication | None] = field(default_factory=dict)  # by commit; None: holds no publication

    def faults(self) -> list[str]:
        """Repos that are half published, publications that were made twice, and older ones that took the place of newer ones, in words."""
        return [fault for repo in self.repos() for fault in self._faults(repo)]

    def repos(self) -> list[str]:
        """All repos of these namespaces, private ones too."""
        return sorted(model.id for model in self.api.list_models() if self._ours(model.id.partition("/")[0]))

    def history(self, repo: str) -> list[Publication]:
        """The publications of a repo among what was looked at, the oldest first."""
        return self._publications(self._commits(repo))

    def branches(self) -> list[str]:
        """Branches beside the default ones, which a publication leaves behind when nobody clears away after it."""
        refs = {repo: self.api.list_repo_refs(repo).branches for repo in self.repos()}
        return [f"{repo}@{branch.name}" for repo, branches in refs.items() for branch in branches if branch.name != "main"]

    def _ours(self, namespace: str) -> bool:
        return namespace == self.namespace or namespace.removeprefix(f"{self.namespace}-").isdecimal()

    def _commits(self, repo: str) -> list[str]:
        return [commit.commit_id for commit in reversed(self.api.list_repo_commits(repo))]

    def _publications(self, commits: list[str]) -> list[Publication]:
        return [found for commit in commits if (found := self.known.get(commit)) is not None]

    def _faults(self, repo: str) -> list[str]:
        commits = self._commits(repo)
        found = [fault for commit in commits if commit not in self.known for fault in self._half(repo, commit)]
        published = self._publications(commits)
        found += [
            f"older over newer: {repo} at {after.commit[:12]} is of upstream commit {after.position}, before it of {before.position}"
            for before, after in pairwise(published)
            if after.position < before.position
        ]
        sources = [item.upstream for item in published]
        found += [f"double: {repo} holds {sources.count(sha)} publications of {sha[:12]}" for sha in sorted(set(sources)) if sources.count(sha) > 1]
        if not published and not self.api.repo_info(repo).private:
            found.append(f"half: {repo} is public and holds no publication")
        return found

    def _half(self, repo: str, commit: str) -> list[str]:
        """Where a commit's files are not those of its manifest."""
        tree = {entry.path: entry for entry in self.api.list_repo_tree(repo, recursive=True, revision=commit) if isinstance(entry, RepoFile)}
        if MANIFEST not in tree:
            self.known[commit] = None
            strange = sorted(set(tree) - {".gitattributes"})
            return [f"half: {repo} at {commit[:12]} holds {', '.join(strange)} and no manifest"] if strange else []
        manifest = Manifest.model_validate_json(self._bytes(repo, commit, MANIFEST))
        place = manifest.upstream.place
        self.known[commit] = Publication(commit=commit, upstream=manifest.upstream.sha, position=0 if place is None else place.position)
        listed = manifest.files
        wrong = sorted(set(tree) - BESIDE ^ set(listed))
        wrong += [path for path in sorted(set(tree) & set(listed)) if self._digest(repo, commit, tree[path]) != (listed[path].bytes, listed[path].sha256)]
        return [f"half: {repo} at {commit[:12]}: {path} is not what the manifest lists" for path in wrong]

    def _digest(self, repo: str, commit: str, entry: RepoFile) -> tuple[int, str]:
        if entry.lfs is not None:
            return entry.lfs.size, entry.lfs.sha256
        content = self._bytes(repo, commit, entry.path)
        return len(content), hashlib.sha256(content).hexdigest()

    def _bytes(self, repo: str, commit: str, path: str) -> bytes:
        files = HfFileSystem(endpoint=self.api.endpoint, token=self.api.token, skip_instance_cache=True)
        return bytes(files.read_bytes(f"{repo}@{commit}/{path}"))
