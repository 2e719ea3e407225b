"""Throws away what nobody needs any more, one output at a time: killed anywhere, it leaves each of them whole, or gone."""

import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from config.settings import Settings
from config.sharing import unused
from service.disk.retention import Fate, Standing, fates
from service.execution.kept import FileId, StageStore, blocks
from service.store import Store


@dataclass(frozen=True, kw_only=True)
class Told:
    """Something that went, would go or stays."""

    kind: str
    name: str
    stage: str
    why: str
    bytes: int  # on the disk; of what several have in common, counted once among all that stays, and where it goes with the last that goes


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """What was thrown away, or would be, and what is left."""

    gone: tuple[Told, ...]
    left: tuple[Told, ...]

    @property
    def freed(self) -> int:
        """Bytes."""
        return sum(item.bytes for item in self.gone)

    @property
    def stays(self) -> int:
        """Bytes."""
        return sum(item.bytes for item in self.left)

    def as_json(self) -> dict[str, Any]:
        """As a JSON document."""
        return {"freed": self.freed, "stays": self.stays, "gone": [vars(item) for item in self.gone], "left": [vars(item) for item in self.left]}


def prune(store: Store, settings: Settings, *, dry_run: bool = False, lacking: int = 0, paused: bool = False, now: datetime | None = None) -> Pruned:
    """Throw away what is over; where more bytes are `lacking` than that frees, also what would stay, in the order in which it is needed.

    What a run that waits or is at work refers to, what a living process uses, and what explains a current publication always stays. Downloads that broke off
    and outputs of the newest runs that are held go only where no run is begun (`paused`) as long as they are there.
    """
    at = now or datetime.now(UTC)
    home = settings.folder
    found = sorted(fates(store, home, settings.keep, at), key=lambda fate: (fate.standing, fate.last))
    files, stages = _Files(found), StageStore(home, reading=dry_run)
    last = Standing.HELD if paused else Standing.PUBLISHED
    gone, left, freed = list[Told](), list[Fate](), 0
    for fate in found:
        wanted = not fate.stays or (fate.standing <= last and freed < lacking)
        if wanted and (dry_run or _removed(store, stages, fate, at)):
            gone.append(_told(fate, files.without(fate)))
            freed += gone[-1].bytes
        else:
            left.append(fate)
    if not dry_run:
        _sweep(stages.blobs)
        stages.close()
    kept = files.among(left)
    return Pruned(gone=tuple(gone), left=tuple(_told(fate, size) for fate, size in zip(left, kept, strict=True)))


def _told(fate: Fate, size: int) -> Told:
    return Told(kind=fate.item.kind, name=fate.item.name, stage=fate.item.stage, why=fate.why, bytes=size)


def _removed(store: Store, stages: StageStore, fate: Fate, since: datetime) -> bool:
    """Remove it unless somebody has come to need it since it was looked at."""
    if fate.item.kind == "logs":
        shutil.rmtree(fate.item.path, ignore_errors=True)
        return True
    if fate.item.kind == "download":
        shutil.rmtree(stages.give_up(fate.item.name), ignore_errors=True)
        return True
    with store.unneeded(fate.item.name, since=since) as unneeded:
        aside = stages.set_aside(fate.item.name) if unneeded else None
    if aside is None:
        return False
    shutil.rmtree(aside, ignore_errors=True)  # which may take long, and nobody has to wait for
    return True


def _sweep(blobs: Path) -> None:
    for blob in unused(blobs):
        with suppress(OSError):
            blob.unlink()


class _Files:
    """The files of outputs, of which several may be one on the disk."""

    def __init__(self, all: Iterable[Fate]) -> None:
        self._of = {fate.item.path: blocks([fate.item.path]) for fate in all}
        self._names: Counter[FileId] = Counter(file for files in self._of.values() for file in files)

    def without(self, fate: Fate) -> int:
        """Bytes that are free once this is gone, after all that was asked for before."""
        files = self._of[fate.item.path]
        self._names.subtract(files.keys())
        return sum(size for file, size in files.items() if self._names[file] == 0)

    def among(self, fates: Sequence[Fate]) -> list[int]:
        """Bytes of each, without what an earlier one of them has in common with it."""
        seen: set[FileId] = set()
        sizes = []
        for files in (self._of[fate.item.path] for fate in fates):
            sizes.append(sum(size for file, size in files.items() if file not in seen))
            seen |= files.keys()
        return sizes
