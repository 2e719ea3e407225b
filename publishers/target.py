"""A repo to publish to, as it is at one moment: what it holds, whether that is ours, and what of it a publication may change."""

import tempfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile

from config.errors import PublishConflict
from publishers import manifest as manifests
from publishers import sections
from publishers.manifest import Adopted, Adoption, Manifest
from publishers.naming import CARD, MANIFEST, same_repo
from publishers.wire import hub_errors

ATTRIBUTES = ".gitattributes"  # kept by the Hub itself, which adds the LFS rules of each commit to it
STUB_BYTES = 64 * 2**10  # a README above this size is content, not a stub
LISTED = 5  # files that an error names


@dataclass(frozen=True, kw_only=True)
class Head:
    """The target repo as seen at one moment."""

    commit: str | None  # None: no commit yet
    private: bool
    tree: Mapping[str, RepoFile]
    manifest: Manifest | None = None  # of our publication there
    adopted: Adopted | None = None  # where a person gave us the repo, and nothing was published since

    @property
    def upstream(self) -> str | None:
        """The repo whose publication is, or may come, here; None where nothing says so."""
        if self.manifest is not None:
            return self.manifest.upstream.repo
        return None if self.adopted is None else self.adopted.awaits

    @property
    def adoption(self) -> Adoption | None:
        """What a person agreed to, where others had filled the repo."""
        return self.adopted.adoption if self.adopted is not None else None if self.manifest is None else self.manifest.adoption

    @property
    def foreign(self) -> dict[str, RepoFile]:
        """The files that no publication of ours put there, by path."""
        ours = {ATTRIBUTES, *(() if self.manifest is None else self.manifest.files), *((MANIFEST,) if self.upstream is not None else ())}
        return {path: entry for path, entry in self.tree.items() if path not in ours}


def digest(entry: RepoFile) -> str:
    """What tells a file of a listing from every other: sha256 where it is in LFS, git's blob id elsewhere."""
    return str(entry.blob_id if entry.lfs is None else entry.lfs.sha256)


def settled(repo: str, head: Head, wanted: Collection[str], same: Collection[str]) -> Adoption | None:
    """What is left of an adoption once `wanted` are the repo's own files, of which it holds `same` already; None where the repo was not adopted.

    Raises PublishConflict when a file of somebody else's would be replaced or removed that nobody agreed to, or that is another one by now.
    """
    adoption = head.adoption
    if adoption is None:
        return None
    foreign = head.foreign
    refuse_unagreed(repo, head, [path for path in foreign if path in wanted and path not in same])
    gone = [path for path in adoption.removable if path in foreign and path not in wanted]
    if changed := [path for path in gone if digest(foreign[path]) != adoption.removable[path]]:
        raise PublishConflict(f"{named(changed)} in {repo} changed after it was agreed to remove them. {_again(repo)}")
    return Adoption(
        by=adoption.by,
        commit=adoption.commit,
        kept=tuple(sorted(set(foreign) - set(wanted) - set(gone))),
        replaceable={path: known for path, known in sorted(adoption.replaceable.items()) if path in foreign and path not in wanted},
    )


def refuse_unagreed(repo: str, head: Head, taken: Iterable[str]) -> None:
    """Raise PublishConflict when an adopted repo holds files of somebody else's under `taken` names that nobody agreed to replace as they are now."""
    adoption = head.adoption
    if adoption is None:
        return
    foreign = head.foreign
    if refused := [path for path in taken if path in foreign and adoption.replaceable.get(path) != digest(foreign[path])]:
        raise PublishConflict(f"{named(refused)} in {repo} came, or changed, after the repo was adopted, and would be replaced. {_again(repo)}")


def named(paths: Collection[str]) -> str:
    """The first of some files by their names, as an error tells them."""
    return ", ".join(sorted(paths)[:LISTED]) + (", …" if len(paths) > LISTED else "")


def _again(repo: str) -> str:
    return f"Nothing was overwritten. `sluice adopt {repo}` shows them and asks."


def read_head(api: HfApi, repo: str, *, previously: str | None) -> Head:
    """The repo's default branch: visibility, listing and manifest. `previously` as in `publish`.

    Raises PublishConflict when its manifest is not readable, HubError.
    """
    with hub_errors(api, f"read {repo}"):
        info = api.repo_info(repo)
    tree = read_tree(api, repo, info.sha)
    found = _read_manifest(api, repo, info.sha, tree)
    if found is None and previously is not None:
        published = read_tree(api, repo, previously)
        if set(tree) <= {*published, ATTRIBUTES}:  # files were deleted, the manifest among them, and nothing foreign was added
            found = _read_manifest(api, repo, previously, published)
    manifest, adopted = (found if isinstance(found, Manifest) else None), (found if isinstance(found, Adopted) else None)
    return Head(commit=info.sha, private=bool(info.private), tree=tree, manifest=manifest, adopted=adopted)


def exists(api: HfApi, repo: str) -> bool:
    """Whether the repo is there; False also when it is invisible to this token. Raises HubError."""
    with hub_errors(api, f"look up {repo}"):
        try:
            api.repo_info(repo)
        except RepositoryNotFoundError:
            return False
    return True


def read_tree(api: HfApi, repo: str, commit: str | None) -> dict[str, RepoFile]:
    """All files at `commit` by path; none when there is no such commit. Raises HubError."""
    if commit is None:
        return {}
    with hub_errors(api, f"list {repo}"):
        try:
            return {entry.path: entry for entry in api.list_repo_tree(repo, recursive=True, revision=commit) if isinstance(entry, RepoFile)}
        except RevisionNotFoundError:
            return {}


def _read_manifest(api: HfApi, repo: str, commit: str | None, tree: Mapping[str, RepoFile]) -> Manifest | Adopted | None:
    if commit is None or MANIFEST not in tree:
        return None
    where = f"{MANIFEST} in {repo} at {commit}"
    if tree[MANIFEST].size > manifests.MAX_BYTES:
        raise PublishConflict(f"{where} is too large to be a manifest. Nothing was overwritten. Publish to another repo, or look at who wrote it.")
    return manifests.read(download(api, repo, commit, MANIFEST), where=where)


def download(api: HfApi, repo: str, commit: str, path: str) -> bytes:
    """The content of a small file."""
    with tempfile.TemporaryDirectory(prefix="sluice-") as folder, hub_errors(api, f"read {path} of {repo}"):
        return Path(api.hf_hub_download(repo, path, revision=commit, local_dir=folder)).read_bytes()


def check_visibility(repo: str, head: Head, *, private: bool) -> None:
    """Raise PublishConflict when the repo is public and what should go there must not be."""
    if private and not head.private:
        raise PublishConflict(
            f"{repo} is public, but what should go there must stay private (its upstream is, or the settings say so). "
            "Nothing was uploaded. Make the repo private on the Hub, or publish under another namespace."
        )


def check_ours(api: HfApi, repo: str, head: Head, *, upstream: str) -> None:
    """Raise PublishConflict when the repo holds what someone else put there, or the publication of another upstream."""
    if head.upstream is not None:
        if not same_repo(head.upstream, upstream):
            holds = f"already holds the publication of {head.upstream}" if head.manifest is not None else f"was adopted for {head.upstream}"
            raise PublishConflict(
                f"{repo} {holds}, and {upstream} would take its place. Nothing was overwritten. Publish one of the two under another namespace."
            )
        return
    if not filled(api, repo, head):
        return
    raise PublishConflict(
        f"{repo} holds files that Sluice did not publish ({named(set(head.tree) - {ATTRIBUTES})}): it has no {MANIFEST}. Nothing was overwritten. "
        f"Publish under another namespace, or, if the repo is yours, see what `sluice adopt {repo}` would keep, replace and remove."
    )


def filled(api: HfApi, repo: str, head: Head) -> bool:
    """Whether the repo holds anything that is not ours but what the Hub itself puts into a new one."""
    content = set(head.foreign)
    return bool(content) and not (content == {CARD} and head.upstream is None and _is_stub(api, repo, head))


def _is_stub(api: HfApi, repo: str, head: Head) -> bool:
    """Whether the card is one that the Hub makes for a new repo: front matter at most, and no text."""
    if head.commit is None or head.tree[CARD].size > STUB_BYTES:
        return False
    _front, body = sections.split(download(api, repo, head.commit, CARD).decode(errors="replace"))
    return not body.strip()
