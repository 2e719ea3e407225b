"""What of `home` stays, what goes, and why: decided by runs, publications and the settings. Nothing is touched here."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal

from config.keep import Keep
from service.execution.kept import PARTIAL, PARTIAL_SECONDS
from service.runs.report import STAGE as REPORT
from service.store import Referrer, Store
from service.store.references import ENDED

CUT_SHORT = ("failed", "cancelled")  # states of runs that did not come to their end


class Standing(IntEnum):
    """How much something is needed; what is needed least goes first when space is short, and what is needed most never."""

    OVER = 0  # goes
    BROKEN_OFF = 1  # a download with which a run goes on only when a person asks for it
    NEWEST = 2
    PUBLISHED = 3
    AWAITED = 4  # a download with which a run goes on by itself: goes only where no run could begin otherwise
    HELD = 5  # of the newest runs that wait for a person: goes after that, and whoever approves one has it made again
    NEEDED = 6


@dataclass(frozen=True, kw_only=True)
class Item:
    """An output of a stage, what there is of one whose download broke off, or the logs of a run."""

    kind: Literal["output", "download", "logs"]
    name: str  # the output's key; "run-7"
    path: Path
    stage: str  # that made the output
    used: datetime  # as the file system knows; of what no run refers to, the last time


@dataclass(frozen=True, kw_only=True)
class Fate:
    """What becomes of it."""

    item: Item
    standing: Standing
    why: str  # it stays, or goes
    last: datetime  # when it was needed the last time

    @property
    def stays(self) -> bool:
        """Whether it does, as long as there is space."""
        return self.standing is not Standing.OVER


def fates(store: Store, home: Path, keep: Keep, now: datetime) -> list[Fate]:
    """What becomes of each output, of each download that broke off and of each run's logs."""
    outputs, downloads = list(_outputs(home / "stages")), list(_downloads(home / "working"))
    referring = store.outputs_of_runs([item.name for item in (*outputs, *downloads)])
    stood = standings(store.referrers(), keep, now)  # the last, so that every run that refers to one of them is among these
    found = [_of_output(item, referring[item.name], stood, keep, now) for item in outputs]
    found += [_of_download(item, referring[item.name], stood, keep, now) for item in downloads]
    return [*found, *(_of_logs(item, stood, keep, now) for item in _logs(home / "logs"))]


Stood = Mapping[int, tuple[Standing, str, datetime]]
"""By run: how much its outputs are needed, why, and when it ended."""


def standings(runs: Sequence[Referrer], keep: Keep, now: datetime) -> Stood:
    """How much the outputs of each run are needed."""
    newer: dict[tuple[object, ...], int] = {}
    found = {}
    for run in sorted(runs, key=lambda run: (run.last, run.run), reverse=True):
        found[run.run] = (*_standing(run, newer, keep, now), run.last)
    return found


def _standing(run: Referrer, newer: dict[tuple[object, ...], int], keep: Keep, now: datetime) -> tuple[Standing, str]:
    """The same of one run; `newer` counts those like it that ended after it, alike well or not, and apart from these the newest that are held."""
    told = f"run {run.run} of {run.repo}@{run.sha[:12]}"
    if run.state == "held":
        newer[run.like, run.state] = newer.get((run.like, run.state), 0) + 1
        if newer[run.like, run.state] <= keep.runs:
            return Standing.NEEDED if run.published else Standing.HELD, f"{told} is held"
        told = f"{told}, which is held,"  # as are newer ones: nobody knows whether it is ever decided
    elif run.state not in ENDED:
        return Standing.NEEDED, f"{told} is {run.state}"
    well = run.state not in CUT_SHORT
    newer[run.like, well] = newer.get((run.like, well), 0) + 1
    if run.published:
        return Standing.PUBLISHED, f"{told} is published in {', '.join(run.published)}"
    if newer[run.like, well] > keep.runs:
        newest = f"{keep.runs} newer one{'' if keep.runs == 1 else 's'}"
        return Standing.OVER, f"{told} has {newest}" if well else f"{told} is {run.state}, as are {newest}"
    if now - run.last > timedelta(days=keep.days):
        return Standing.OVER, f"{told} ended {_ago(run.last, now)}"
    return Standing.NEWEST, f"{told} is among the newest {keep.runs}" + ("" if well else " that did not come to their end")


def _of_output(item: Item, referring: Mapping[int, bool], stood: Stood, keep: Keep, now: datetime) -> Fate:
    """The fate by the run that needs it most. An output that a run made at an earlier attempt, and not again, is needed only as long as that goes on."""
    known: list[tuple[Standing, str, datetime]] = []
    for run, current in referring.items():
        standing, why, last = stood[run]
        if standing is Standing.PUBLISHED and current and item.stage == REPORT:
            standing, why = Standing.NEEDED, f"{why}, and this explains it"
        if not current and standing < Standing.HELD:
            standing, why = Standing.OVER, f"run {run} has made another one since"
        known.append((standing, why, last))
    if not known:
        return _by_use(item, "it belongs to no run", keep, now)
    standing, why, last = max(known, key=lambda each: (each[0], each[2]))
    return Fate(item=item, standing=standing, why=why, last=last)


def _of_download(item: Item, referring: Mapping[int, bool], stood: Stood, keep: Keep, now: datetime) -> Fate:
    """The fate of the output that it was to become, but that it spares time alone."""
    fate = _of_output(item, referring, stood, keep, now)
    standing, why = {Standing.OVER: Standing.OVER, Standing.NEEDED: Standing.AWAITED}.get(fate.standing, Standing.BROKEN_OFF), fate.why
    if now - item.used > timedelta(seconds=PARTIAL_SECONDS):
        standing, why = Standing.OVER, f"nobody went on with it, begun {_ago(item.used, now)}"
    return replace(fate, standing=standing, why=f"a download that broke off: {why}")


def _of_logs(item: Item, stood: Stood, keep: Keep, now: datetime) -> Fate:
    """Logs stay as long as outputs may, however many newer runs there are: they are small, and tell of what went wrong."""
    number = item.name.removeprefix("run-")
    found = stood.get(int(number)) if number.isdecimal() else None
    if found is None:
        return _by_use(item, "its run is not known", keep, now)
    standing, why, last = found
    if standing is Standing.OVER:
        standing = Standing.NEWEST if now - last <= timedelta(days=keep.days) else Standing.OVER
        why = f"run {number} ended {_ago(last, now)}"
    return Fate(item=item, standing=Standing.NEEDED if standing in {Standing.PUBLISHED, Standing.HELD} else standing, why=why, last=last)


def _by_use(item: Item, whose: str, keep: Keep, now: datetime) -> Fate:
    standing = Standing.NEWEST if now - item.used <= timedelta(days=keep.days) else Standing.OVER
    return Fate(item=item, standing=standing, why=f"{whose}, and was last used {_ago(item.used, now)}", last=item.used)


def _ago(then: datetime, now: datetime) -> str:
    days = max(0, (now - then).days)
    return "today" if days == 0 else f"{days} day{'' if days == 1 else 's'} ago"


def _outputs(folder: Path) -> Iterator[Item]:
    for path in _folders(folder):
        record: Any = {}
        with suppress(OSError, ValueError):
            record = json.loads((path / "stage.json").read_bytes())
        stage = record.get("stage") if isinstance(record, dict) else None
        with suppress(FileNotFoundError):  # gone since
            yield Item(kind="output", name=path.name, path=path, stage=str(stage or "damaged"), used=_used(path))


def _downloads(folder: Path) -> Iterator[Item]:
    for path in _folders(folder):
        if path.name.endswith(PARTIAL):
            with suppress(FileNotFoundError):
                yield Item(kind="download", name=path.name.removesuffix(PARTIAL), path=path, stage="", used=_used(path))


def _logs(folder: Path) -> Iterator[Item]:
    for path in _folders(folder):
        if path.name.startswith("run-"):
            with suppress(FileNotFoundError):
                yield Item(kind="logs", name=path.name, path=path, stage="", used=_used(path))


def _folders(folder: Path) -> Iterable[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else ()


def _used(folder: Path) -> datetime:
    """When an output was made or found again, and logs were written, the last time."""
    return datetime.fromtimestamp(folder.stat().st_mtime, UTC)
