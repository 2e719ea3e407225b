"""Publish a set of files as one commit that either holds exactly that set or does not exist, and never twice.

Covered: compare-and-swap on the head, no-op for the same manifest, no older commit of the upstream over a newer one, repair of drift, strangers' repos,
adopted ones, visibility, text that people wrote into the card.
Not covered: history. A commit replaces what the repo held before; earlier publications stay reachable by their commit.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Self

from huggingface_hub import CommitOperationDelete, HfApi
from huggingface_hub.hf_api import RepoFile

from config.copying import hashed
from config.digests import file_sha256
from config.errors import Damaged, HubError, HubUnavailable, PublishConflict
from config.passing import pause
from config.progress import Tally
from config.words import Rollback
from publishers import opening, order, sections, sending, staging, target
from publishers.manifest import FileEntry, Manifest
from publishers.naming import CARD, MANIFEST, checked_path
from publishers.opening import Forgetful, Openings
from publishers.order import Line, Point
from publishers.readme import OWNED
from publishers.sending import Operation
from publishers.target import ATTRIBUTES, Head
from publishers.wire import hub_errors

log = logging.getLogger(__name__)

ATTEMPTS = 3  # commits tried when the head moves while we upload
ANSWERS = 3  # times that one commit is sent when no answer comes and it was not made either
CARD_BYTES = 2**20  # a README above this size was not written by people into a card of ours
REGULAR_BYTES = 10 * 2**20  # the Hub keeps files above this size in LFS, by their sha256


@dataclass(frozen=True, kw_only=True)
class PublishFile:
    """One file of a publication."""

    path: str  # inside the repo
    source: Path | bytes
    sha256: str
    size: int  # bytes

    @classmethod
    def from_path(cls, path: str, file: Path, *, sha256: str | None = None) -> Self:
        """The file on disk, published as `path`; its sha256 is computed unless the caller knows it."""
        return cls(path=checked_path(path), source=file, sha256=sha256 or file_sha256(file), size=file.stat().st_size)

    @classmethod
    def from_bytes(cls, path: str, content: bytes) -> Self:
        """`content`, published as `path`."""
        return cls(path=checked_path(path), source=content, sha256=hashlib.sha256(content).hexdigest(), size=len(content))


def inventory(files: Iterable[PublishFile]) -> dict[str, FileEntry]:
    """The `files` of a manifest that covers these files."""
    return {file.path: FileEntry(sha256=file.sha256, bytes=file.size) for file in sorted(files, key=lambda file: file.path)}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one repo is to hold, whole. The manifest is added to `files` by `publish` and must cover exactly them."""

    repo: str  # "namespace/name"
    private: bool
    files: tuple[PublishFile, ...]
    manifest: Manifest
    message: str  # commit message
    rollback: Rollback | None = None  # what it may take the place of although that is newer

    def __post_init__(self) -> None:
        if len({file.path for file in self.files}) != len(self.files) or inventory(self.files) != self.manifest.files:
            raise ValueError(f"the manifest for {self.repo} does not cover exactly the files of the plan")
        if CARD not in self.manifest.files:
            raise ValueError(f"the plan for {self.repo} has no {CARD}")


@dataclass(frozen=True, kw_only=True)
class Publication:
    """A commit on the Hub that holds exactly the files of a plan, beside those of others that an adoption keeps and the manifest names."""

    repo: str
    revision: str  # 40 hex digits
    url: str
    files: tuple[str, ...]  # sorted paths, manifest and card included
    manifest_digest: str
    changed: bool  # False: the Hub already held it, nothing was uploaded
    remark: str | None = None  # what a person should look at there


@dataclass(frozen=True, kw_only=True)
class _Settled:
    """What a plan comes to in the repo as it is."""

    wanted: tuple[PublishFile, ...]  # with the manifest
    manifest: Manifest
    kept: tuple[str, ...]  # files of others that stay

    def operations(self, tree: Mapping[str, RepoFile]) -> list[Operation]:
        """What turns `tree` into exactly this."""
        return _operations(self.wanted, tree, kept=self.kept)


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of a repo beforehand, and what has to hold when something is changed there."""

    previously: str | None = None  # the commit of our last publication, which proves that the repo is ours when someone deleted the manifest
    line: Line | None = None  # the history of the upstream, if it was read before
    openings: Openings = field(default_factory=Forgetful)  # which repos are to be made public
    fence: Callable[[], None] = lambda: None  # raises when whoever publishes may not any more; asked right before main, or who sees it, is changed
    made: Callable[["Publication"], None] = lambda publication: None  # hears of it as soon as main holds it, whatever fails afterwards
    used: Callable[[str, Collection[str]], None] = lambda commit, sent: None  # tries what is staged at a commit, which brings these files; raises to stop it


def publish(api: HfApi, plan: Plan, known: Known | None = None) -> Publication:
    """Make `plan.repo` hold exactly the plan's files, the manifest and, once adopted, the files that are kept in it, in at most one commit on main.

    What people wrote into a card of ours outside of our sections stays there.
    A repo that is not there is made private and opened with the publication in it.
    Killed or failing at any point, nothing new is visible. Raises Superseded when a newer commit of the upstream is published there, PublishConflict when the
    repo holds something that is not ours or keeps changing, HubError when the Hub refuses or cannot be reached.
    """
    with staged(api, plan, known) as promote:
        return promote()


@contextmanager
def staged(api: HfApi, plan: Plan, known: Known | None = None) -> Iterator[Callable[[], Publication]]:
    """Have all of `publish` done but what others see: everything is uploaded, lies beside main and was tried there.

    The block gets what does the rest, once; where main has moved on, that begins again. Nothing is left beside main after the block. Both raise what `publish`
    does.
    """
    with closing(_parts(api, plan, known or Known())) as parts:
        next(parts)
        yield lambda: _to_the_end(parts)


def _to_the_end(parts: Generator[None, None, Publication]) -> Publication:
    while True:
        try:
            next(parts)
        except StopIteration as end:
            made: Publication = end.value
            return made


def _parts(api: HfApi, plan: Plan, known: Known) -> Generator[None, None, Publication]:
    """See `publish`; pauses wherever all is ready, before anything is changed that others see."""
    line = known.line or Line(api, plan.manifest.upstream.repo)
    opening.ensure(api, plan.repo, known.openings, private=plan.private)
    head = target.read_head(api, plan.repo, previously=known.previously)
    for attempt in range(1, ATTEMPTS + 1):
        target.check_visibility(plan.repo, head, private=plan.private)
        target.check_ours(api, plan.repo, head, upstream=plan.manifest.upstream.repo)
        card, damage = _merged_card(api, plan, head, previously=known.previously)
        settled = _settled(plan, head, card, line)
        operations = settled.operations(head.tree)
        changed = bool(operations) or head.commit is None
        if changed:
            commit = yield from _sent(api, plan, settled, operations, head, known)
        else:
            yield
            known.fence()
            commit = head.commit if target.read_head(api, plan.repo, previously=known.previously).commit == head.commit else None
        if commit is not None:
            publication = replace(_publication(api, plan, settled, commit), changed=changed, remark=damage if changed else None)
            known.made(publication)
            if changed:
                _check_result(api, plan, settled, commit)
                log.info("published %s at %s: %d operations", plan.repo, commit, len(operations), extra={"action": "publish"})
            _completed(api, plan, known)
            return publication
        log.warning("%s moved on from %s while its files were uploaded (attempt %d)", plan.repo, head.commit, attempt, extra={"action": "publish_stale"})
        before, head = head, target.read_head(api, plan.repo, previously=known.previously)
        if head.manifest != before.manifest and _contradicts(head.manifest, plan.manifest):
            break
    raise PublishConflict(
        f"{plan.repo} changed while it was being published (now at {head.commit}). Nothing was overwritten. "
        "Make sure that only one service publishes there, look at the repo's last commits, then run it again."
    )


def _completed(api: HfApi, plan: Plan, known: Known) -> None:
    """What is left to do when the repo holds the publication, also by another process that was killed before it did."""
    staging.sweep(api, plan.repo)
    opening.complete(api, plan.repo, known.openings, private=plan.private)


def _settled(plan: Plan, head: Head, card: PublishFile, line: Line) -> _Settled:
    """The plan with this card, and with what an adoption of the repo, or a roll-back, adds to its manifest.

    Raises PublishConflict when that does not allow it, Superseded when something newer is there, HubError.
    """
    rollback = order.settled(line, order.point_of(plan.manifest), plan.rollback, head.manifest, where=plan.repo)
    same = {file.path for file in plan.files if file.path in head.tree and same_bytes(file, head.tree[file.path])}
    adoption = target.settled(plan.repo, head, plan.manifest.files, same)
    manifest = plan.manifest.model_copy(update={"adoption": adoption, "rollback": rollback})
    wanted = (card, *(file for file in plan.files if file.path != CARD), PublishFile.from_bytes(MANIFEST, manifest.to_bytes()))
    return _Settled(wanted=wanted, manifest=manifest, kept=() if adoption is None else adoption.kept)


def _merged_card(api: HfApi, plan: Plan, head: Head, *, previously: str | None) -> tuple[PublishFile, str | None]:
    """The plan's card with what people wrote into the one at the head, and what was wrong with that one's markers.

    What is there and was never ours is no card of ours: it is replaced where that was agreed to.
    Its bytes are not those of which the manifest speaks where there is such text. Raises PublishConflict when what is there is too large to be a card.
    """
    ours = next(file for file in plan.files if file.path == CARD)
    entry = head.tree.get(CARD)
    if head.manifest is None or head.commit is None or entry is None or same_bytes(ours, entry):
        return ours, None
    refuse_large_card(f"{CARD} of {plan.repo}", entry.size)
    there = target.download(api, plan.repo, head.commit, CARD)
    merged, damage = with_their_words(ours, there, head.manifest, base=lambda: _published_card(api, plan.repo, previously) if previously else None)
    if damage is not None:
        log.warning("%s: %s", plan.repo, damage, extra={"action": "publish_card"})
    return merged, damage


def refuse_large_card(card: str, size: int) -> None:
    """Raise PublishConflict when what is there is too large to be a card; `card` says which."""
    if size > CARD_BYTES:
        raise PublishConflict(f"{card} has {size} bytes, more than a card that people wrote into. Nothing was overwritten. Shorten it, or delete it.")


def with_their_words(ours: PublishFile, there: bytes, before: Manifest, *, base: Callable[[], str | None] = lambda: None) -> tuple[PublishFile, str | None]:
    """The card `ours` with what people wrote into the one that is `there`, and what was wrong with that one's markers.

    `before` is the manifest of what is there, `base` gives the card as it was published, where that can be had.
    """
    published = before.files.get(CARD)
    if published is not None and published.sha256 == hashlib.sha256(there).hexdigest():
        return ours, None  # nobody wrote into it
    new = ours.source if isinstance(ours.source, bytes) else ours.source.read_bytes()
    merged = sections.merge(new.decode(), there.decode(errors="replace"), owned=OWNED, base=base())
    return PublishFile.from_bytes(CARD, merged.text.encode()), merged.damage and f"{merged.damage} What was written beside them stands at its end."


def _published_card(api: HfApi, repo: str, commit: str) -> str | None:
    """The card as it was published; None when it cannot be had any more."""
    tree = target.read_tree(api, repo, commit)
    if CARD not in tree or tree[CARD].size > CARD_BYTES:
        return None
    return target.download(api, repo, commit, CARD).decode(errors="replace")


def _contradicts(there: Manifest | None, planned: Manifest) -> bool:
    """Whether somebody published the same commit of the upstream otherwise: neither of the two is newer."""
    if there is None or there.upstream.sha != planned.upstream.sha:
        return False
    return there.model_copy(update={"adoption": None, "rollback": None}) != planned


@dataclass(frozen=True, kw_only=True)
class Prospective:
    """What is known of a publication before anything is there to publish."""

    upstream: str  # the repo that it is made from
    sha: str  # at this commit
    private: bool
    previously: str | None = None  # as in `publish`
    rollback: Rollback | None = None  # as in `Plan`
    planned: Callable[[str], bool] = lambda path: False  # whether a path may be published


def check_target(api: HfApi, repo: str, wanted: Prospective, *, line: Line | None = None) -> None:
    """Raise what `publish` would about a repo as it is now; nothing is written. A repo that is missing is fine.

    Raises Superseded, PublishConflict, HubError.
    """
    if not target.exists(api, repo):  # or invisible to this token: only creating it would tell
        return
    head = target.read_head(api, repo, previously=wanted.previously)
    target.check_visibility(repo, head, private=wanted.private)
    target.check_ours(api, repo, head, upstream=wanted.upstream)
    target.refuse_unagreed(repo, head, filter(wanted.planned, head.foreign))
    order.settled(line or Line(api, wanted.upstream), Point(sha=wanted.sha), wanted.rollback, head.manifest, where=repo)


def _operations(wanted: Iterable[PublishFile], tree: Mapping[str, RepoFile], *, kept: Collection[str]) -> list[Operation]:
    """What turns `tree` into exactly the wanted files and those kept: additions of what is missing or different, deletions of the rest."""
    files = {file.path: file for file in wanted}
    new = [file for path, file in sorted(files.items()) if path not in tree or not same_bytes(file, tree[path])]
    additions = _additions(new) if new else []
    deletions = [CommitOperationDelete(path_in_repo=path, is_folder=False) for path in sorted(set(tree) - set(files) - set(kept) - {ATTRIBUTES})]
    return [*additions, *deletions]


def _additions(files: Collection[PublishFile]) -> list[Operation]:
    tally = Tally(sum(file.size for file in files), "bytes")  # of large ones this takes minutes
    return [addition(file, tally.add) for file in files]


def addition(file: PublishFile, heard: Callable[[int], None] = lambda count: None) -> sending.Addition:
    """The upload of exactly the bytes that the plan names; `heard` is told bytes as they are compared. Raises Damaged when the file has other ones by now."""
    source = file.source
    if isinstance(source, Path):
        content = source.read_bytes() if file.size <= REGULAR_BYTES else None  # may go into the commit itself, where nobody compares its sha256
        if (hashed(source, heard) if content is None else hashlib.sha256(content).hexdigest()) != file.sha256:
            raise Damaged(f"{source} has other bytes than were recorded of it, so it is not published as {file.path}. It has to be made again.", source)
        source = source if content is None else content
    operation = sending.Addition(path_in_repo=file.path, path_or_fileobj=source)
    operation.upload_info.sha256 = bytes.fromhex(file.sha256)  # spares hashing a large file a second time
    return operation


def same_bytes(file: PublishFile, entry: RepoFile) -> bool:
    """Whether the Hub's file has these bytes: by sha256 when it is in LFS, else by git's blob id."""
    if entry.size != file.size:
        return False
    if entry.lfs is not None:
        return bool(entry.lfs.sha256 == file.sha256)
    return bool(entry.blob_id == _git_blob_id(file))


def _git_blob_id(file: PublishFile) -> str:
    """sha1 of git's header ("blob", the size, a zero byte) and the content."""
    digest = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    if isinstance(file.source, bytes):
        digest.update(file.source)
    else:
        with file.source.open("rb") as stream:
            while piece := stream.read(2**20):
                digest.update(piece)
    return digest.hexdigest()


def _sent(api: HfApi, plan: Plan, settled: _Settled, operations: list[Operation], head: Head, known: Known) -> Generator[None, None, str | None]:
    """Upload, stage, read back, use, pause, and commit on top of `head`; the new commit, or None when the head has moved on meanwhile.

    Where no answer comes the repo is looked at: what was made is not made again. Raises HubUnavailable when that does not settle it, and what `fence` and
    `used` do.
    """
    step = staging.Step(operations=operations, message=plan.message, parent=head.commit)
    for tries in count(1):
        promoting = False
        try:
            with staging.beside(api, plan.repo, step) as commit:
                _check_result(api, plan, settled, commit)
                known.used(commit, {operation.path_in_repo for operation in operations if isinstance(operation, sending.Addition)})
                yield
                known.fence()
                promoting = True
                return staging.promote(api, plan.repo, step)
        except staging.Moved:
            return None
        except HubUnavailable as fault:
            found = target.read_head(api, plan.repo, previously=known.previously)
            if found.commit != head.commit:
                log.warning("the answer to a commit of %s was lost; its head is %s now", plan.repo, found.commit, extra={"action": "publish_lost"})
                return found.commit if promoting and not settled.operations(found.tree) else None
            if fault.wait is not None or tries == ANSWERS:  # the client has waited already as long as the Hub asked for and there is patience
                raise
            time.sleep(pause(tries, first=0.5))
    raise AssertionError  # the count never ends


def _check_result(api: HfApi, plan: Plan, settled: _Settled, commit: str) -> None:
    """Look at what was just committed. Raises HubError when it is not exactly the plan, or became public meanwhile."""
    with hub_errors(api, f"check {plan.repo}"):
        private = bool(api.repo_info(plan.repo, revision=commit).private)
    if plan.private and not private:
        raise HubError(f"{plan.repo} was made public while it was being published, but its content must stay private. Make it private on the Hub now.")
    if wrong := [operation.path_in_repo for operation in settled.operations(target.read_tree(api, plan.repo, commit))]:
        raise HubError(
            f"The Hub accepted commit {commit} of {plan.repo}, but it does not hold what was sent: {target.named(wrong)} differ. "
            "Look at the repo (a .gitignore there hides files), then run it again."
        )


def _publication(api: HfApi, plan: Plan, settled: _Settled, commit: str) -> Publication:
    """What the repo holds at a commit, as nothing changed there."""
    return Publication(
        repo=plan.repo,
        revision=commit,
        url=f"{api.endpoint}/{plan.repo}",
        files=tuple(sorted(file.path for file in settled.wanted)),
        manifest_digest=settled.manifest.digest(),
        changed=False,
    )


def collection(api: HfApi, title: str, namespace: str, private: bool, repos: Iterable[str]) -> str:
    """Put all repos of a release into one collection of that title, creating what is missing; its slug. Raises HubError, PublishConflict."""
    with hub_errors(api, f"open the collection {title!r} of {namespace}"):
        found = api.create_collection(title, namespace=namespace, private=private, exists_ok=True)
    if private and not found.private:
        raise PublishConflict(
            f"The collection {found.slug} is public, but what should go there must stay private. Nothing was added. Make it private on the Hub."
        )
    listed = {item.item_id for item in found.items}
    for repo in repos:
        if repo not in listed:
            with hub_errors(api, f"add {repo} to the collection {found.slug}"):
                api.add_collection_item(found.slug, repo, "model", exists_ok=True)
    return found.slug
