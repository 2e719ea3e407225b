"""Leave a set of files as a folder that is whole or not there, and never twice: what `publishers.hub` does with repos, for whoever has no account.

Covered: written beside and renamed, no-op for the same manifest, strangers' content, publications of another upstream, a kill at any moment.
Not covered: history. A folder of ours is replaced, and only when it holds nothing but what we left there.
"""

import fcntl
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from config.copying import copy, hashed
from config.errors import Damaged, PublishConflict, StageError
from config.progress import Tally
from publishers import manifest as manifests
from publishers import naming, order
from publishers.hub import Plan, Prospective, Publication, PublishFile, refuse_large_card, with_their_words
from publishers.manifest import Manifest
from publishers.naming import CARD, MANIFEST
from publishers.order import Line, Point
from publishers.target import named

log = logging.getLogger(__name__)

NEW, OLD = "sluice-new", "sluice-old"  # ends of the names of folders that are being written, and that are about to be removed


def publish(folder: Path, plan: Plan, line: Line | None = None) -> Publication:
    """Make the folder NAME of `plan.repo` in `folder`, which is made when it is not there, hold exactly the plan's files and the manifest.

    What people wrote into a card of ours outside of our sections stays there.
    Killed or failing at any point, what was there before is there or nothing is. Files are copies that share their blocks with ours where the file system can.
    `line` is the history of the upstream, where it can be read.

    Raises Superseded when a newer commit of it is there, PublishConflict when something is there that is not ours or that somebody changed, StageError when it
    cannot be written, HubError when the history cannot be read.
    """
    remark, line = None, line or Line(None, plan.manifest.upstream.repo)
    target = Path(naming.place(plan.repo, str(folder)))
    with _in_words(target):
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            _recover(target)
            sizes = _listed(target)
            before = _ours(target, sizes, upstream=plan.manifest.upstream.repo)
            card = next(file for file in plan.files if file.path == CARD)
            if before is not None:
                _refuse_changed(target, before, sizes)
                card, remark = _merged_card(card, target, before, sizes)
            rollback = order.settled(line, order.point_of(plan.manifest), plan.rollback, before, where=str(target))
            manifest = plan.manifest.model_copy(update={"rollback": rollback})
            wanted = (card, *(file for file in plan.files if file.path != CARD), PublishFile.from_bytes(MANIFEST, manifest.to_bytes()))
            changed = before != manifest or not {file.path for file in wanted} <= sizes.keys() or not _same_card(card, target)
            if changed:
                _write(target, wanted, over=before is not None)
                log.info("left %s: %d files", target, len(wanted), extra={"action": "publish"})
    return Publication(
        repo=str(target),
        revision=manifest.digest()[:40],
        url=target.as_uri(),
        files=tuple(sorted(file.path for file in wanted)),
        manifest_digest=manifest.digest(),
        changed=changed,
        remark=remark,
    )


def check_target(folder: Path, repo: str, wanted: Prospective, line: Line | None = None) -> None:
    """Raise what `publish` would about a folder as it is now, before anything is there to be left; nothing is written, and no large file is read.

    Raises Superseded, PublishConflict, StageError, HubError.
    """
    target = Path(naming.place(repo, str(folder)))
    with _in_words(target):
        nearest = next(path for path in (folder, *folder.parents) if path.exists() or path.is_symlink())
        if not nearest.is_dir():
            raise PublishConflict(f"{nearest} is not a folder, so nothing can be left in {folder}. Name a folder, or one that does not exist yet.")
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise PublishConflict(f"{nearest} may not be written by this account, so nothing can be left in {folder}. Name another folder.")
        sizes = _listed(target)
        if (before := _ours(target, sizes, upstream=wanted.upstream)) is not None:
            _refuse_foreign(target, before, sizes)
    order.settled(line or Line(None, wanted.upstream), Point(sha=wanted.sha), wanted.rollback, before, where=str(target))


def _write(target: Path, wanted: Iterable[PublishFile], *, over: bool) -> None:
    """Put the files into a folder beside the target, and that into its place; `over` what we left there, which goes."""
    beside, away = _beside(target, NEW), _beside(target, OLD)
    files = sorted(wanted, key=lambda file: file.path)
    tally = Tally(sum(file.size for file in files), "bytes")
    try:
        beside.mkdir()
        for file in files:
            _put(file, beside / file.path, tally)
        for path in (beside, *(path for path in beside.rglob("*") if path.is_dir())):
            _on_disk(path)
        if over and target.exists():
            target.rename(away)
        beside.rename(target)
        _on_disk(target.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    shutil.rmtree(away, ignore_errors=True)


def _put(file: PublishFile, path: Path, tally: Tally) -> None:
    """Exactly the bytes that the plan names. Raises StageError when the source has others by now."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(file.source, Path):
        if copy(file.source, path, tally.add) != file.sha256:
            raise Damaged(f"{file.source} has other bytes than were recorded of it, so it is not left as {file.path}. It has to be made again.", file.source)
        return
    with path.open("xb") as stream:
        stream.write(file.source)
        stream.flush()
        os.fsync(stream.fileno())
    tally.add(file.size)


def _recover(target: Path) -> None:
    """Undo what a killed process left: nobody else is at it, since the caller has the folder to itself."""
    beside, away = _beside(target, NEW), _beside(target, OLD)
    shutil.rmtree(beside, ignore_errors=True)
    if away.is_dir() and not target.exists():
        away.rename(target)
    shutil.rmtree(away, ignore_errors=True)


def _ours(target: Path, sizes: Mapping[str, int], *, upstream: str) -> Manifest | None:
    """The manifest of what we left there; None where nothing is. Raises PublishConflict when something else is."""
    if not sizes:
        return None
    if MANIFEST not in sizes:
        raise PublishConflict(
            f"{target} holds files that Sluice did not leave there ({named(sizes)}): it has no {MANIFEST}. Nothing was overwritten. "
            "Move it away, or name another folder."
        )
    if sizes[MANIFEST] > manifests.MAX_BYTES:
        raise PublishConflict(f"{target / MANIFEST} is too large to be a manifest. Nothing was overwritten. Move the folder away, or name another one.")
    found = manifests.read((target / MANIFEST).read_bytes(), where=str(target / MANIFEST))
    if isinstance(found, manifests.Adopted):  # of a repo that was downloaded before anything was published there
        raise PublishConflict(
            f"{target} holds a repo's files that were not left there by Sluice. Nothing was overwritten. Move it away, or name another folder."
        )
    if found.upstream.repo != upstream:
        raise PublishConflict(
            f"{target} already holds the publication of {found.upstream.repo}, and {upstream} would take its place. Nothing was overwritten. "
            "Name another folder, or give one of the two another name."
        )
    return found


def _refuse_foreign(target: Path, manifest: Manifest, sizes: Mapping[str, int]) -> None:
    if foreign := set(sizes) - set(manifest.files) - {MANIFEST}:
        raise PublishConflict(
            f"{target} holds files that Sluice did not leave there: {named(foreign)}. Nothing was overwritten. Move them away, then run it again."
        )


def _merged_card(card: PublishFile, target: Path, before: Manifest, sizes: Mapping[str, int]) -> tuple[PublishFile, str | None]:
    """The card with what people wrote into the one that is there, and what was wrong with that one's markers. Raises PublishConflict when it is too large."""
    if CARD not in sizes:
        return card, None
    refuse_large_card(str(target / CARD), sizes[CARD])
    return with_their_words(card, (target / CARD).read_bytes(), before)


def _same_card(card: PublishFile, target: Path) -> bool:
    return hashed(target / CARD) == card.sha256


def _refuse_changed(target: Path, manifest: Manifest, sizes: Mapping[str, int]) -> None:
    """Raise PublishConflict when a file is there that we did not leave so: unlike a repo, a folder has no history to find it in again.

    A card is ours but for what people write into it.
    """
    _refuse_foreign(target, manifest, sizes)
    there = {path: entry for path, entry in manifest.files.items() if path in sizes and path != CARD}
    tally = Tally(sum(entry.bytes for entry in there.values()), "bytes")
    if edited := [path for path, entry in there.items() if sizes[path] != entry.bytes or hashed(target / path, tally.add) != entry.sha256]:
        raise PublishConflict(
            f"{target} holds files that were changed since Sluice left them there: {named(edited)}. Nothing was overwritten. "
            "Move them away, or delete them, then run it again."
        )


def _listed(target: Path) -> dict[str, int]:
    """Bytes of everything in the folder that is no folder, by path; nothing where there is none. Raises PublishConflict when it is not a folder itself."""
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise PublishConflict(f"{target} is there and is not a folder. Nothing was overwritten. Move it away, or name another folder.")
    found: dict[str, int] = {}
    for where, folders, names in os.walk(target):
        for name in (*names, *(name for name in folders if Path(where, name).is_symlink())):
            path = Path(where, name)
            found[path.relative_to(target).as_posix()] = path.lstat().st_size
    return found


def _beside(target: Path, end: str) -> Path:
    return target.with_name(f".{target.name}.{end}")


def _on_disk(folder: Path) -> None:
    """Have a folder's entries survive a loss of power."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes that leave something in the folder waiting until the block ends; the folder itself is the lock, so none is left in it."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # some network file systems know no locks
            fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


@contextmanager
def _in_words(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise StageError(
            f"{error.filename or target} cannot be read or written: {reason}. Nothing half is left there. Make room or name another folder."
        ) from error
