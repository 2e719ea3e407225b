"""Days of a service within minutes: under a clock that is set it polls, looks, releases on a short way and keeps house, against the embedded Hub."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select

from bench.clock import Clock
from bench.short_way import nothing_to_run, short
from bench.soak.found import Found
from bench.soak.share import Share
from bench.soak.world import NAMESPACE, World
from config.keep import Keep
from config.settings import Settings, Watched
from service.daemon import housekeeping
from service.daemon.hints import take_hints
from service.daemon.housekeeping import Housekeeping
from service.daemon.listing import Listings
from service.daemon.polling import poll
from service.disk import pruning, records
from service.execution.kept import blocks
from service.hubclient import connect
from service.release import lifecycle, watchlist
from service.release.work import Work
from service.store import Artifact, Store, database, open_store, owner
from service.store.tables import Base

STEP = timedelta(minutes=15)  # between two polls
OFTEN = 8  # polls between two commits of a model
MODELS = 4
WEIGHTS = 300_000  # bytes that a run keeps
KEEP = Keep(runs=2, days=0.25, run_days=0.5, message_days=0.5, audit_days=0.5, free="1kB", pause="1kB")
CLOCKS = (database, owner, watchlist, records, pruning, housekeeping)  # modules that ask what time it is
DAY = 24  # hours
GROWN = 1.1  # times what the second day took at its most, that later days may take


def hours(world: World, share: Share, *, step: timedelta = STEP, often: int = OFTEN, models: int = MODELS) -> Found:
    """So many hours of a service whose upstreams commit again and again; disk and records must not grow, and the newest must be published, once."""
    found, sizes, rows = Found("simulated hours", share.number), list[tuple[float, int]](), list[tuple[float, int]]()
    home = world.folder / "home"
    database_url = world.database("home")
    settings = Settings(
        home=home,
        database_url=database_url,
        hub_endpoint=world.proxy.url,
        hub_token=SecretStr(world.token),
        namespace=NAMESPACE,
        watch=(Watched(owners=("upstream",), recipe=str(_recipe(world))),),
        keep=KEEP,
    )
    store = open_store(database_url)
    with _simulated(world) as clock:
        listings, keeper, began = Listings(connect(settings)), Housekeeping(store, settings), clock.at
        polls = 0
        while (passed := (clock.at - began).total_seconds() / 3600) < share.number and time.monotonic() < share.until:
            for model in range(models):
                if (polls + model * often // models) % often == 0:
                    world.push(f"upstream/model-{model}")
            poll(store, settings, listings)
            take_hints(store, settings, listings)
            found.wrong += _worked(store, settings)
            sizes.append((passed, sum(blocks([home / "stages", home / "blobs", home / "logs"]).values())))
            rows.append((passed, _rows(store)))
            keeper.look()
            clock.at += step
            polls += 1
            found.done["hours"] = round((clock.at - began).total_seconds() / 3600)
            share.told(found)
    commits, disk, most = sum(map(len, world.pushed.values())), max((size for _, size in sizes), default=0), max((size for _, size in rows), default=0)
    print(f"{polls} polls, {commits} commits; at most {disk / 1e6:.1f} MB on the disk and {most:,} rows", flush=True)
    found.wrong += [*_grown("bytes on the disk", sizes), *_grown("rows in the database", rows), *world.judge.faults(), *world.lost()]
    store.close()
    return found


def _grown(what: str, seen: list[tuple[float, int]]) -> list[str]:
    """What is wrong with how much there was, by the hour: after the first two days, in which old things may not be old enough to go, it must not grow."""
    second = max((size for hour, size in seen if hour <= 2 * DAY), default=0)
    later = max((size for hour, size in seen if hour > 2 * DAY), default=0)
    return [f"grown: {later:,} {what} after two days, {second:,} before"] if later > GROWN * second else []


def _worked(store: Store, settings: Settings) -> list[str]:
    """Carry out what waits; what did not end well."""
    wrong = []
    while (run := store.lease("soak", seconds=600)) is not None:
        lifecycle.execute(store, run, settings)
        if (ended := store.run(run.id)).state != "done":
            wrong.append(f"ended as {ended.state}: {ended.error}")
    return wrong


def _kept(work: Work) -> Mapping[str, bytes | Path]:
    """What a run publishes; and an output of a stage is kept, as a run that builds something does."""
    stages, key = work.job.stages, sha256(work.release.sha.encode()).hexdigest()
    if stages.look_up(key) is None:
        with stages.workspace(key) as workspace:
            (workspace / "files" / "model").write_bytes(os.urandom(WEIGHTS))
            stages.keep(key, workspace, {"stage": "convert"}, {"file": "model"}, 0.1)
    work.job.store.stage_reused(work.job.run.id, "convert", key, seconds=0.1, artifacts=(Artifact(name="model", sha256="a" * 64, bytes=WEIGHTS),))
    return nothing_to_run(work)


def _rows(store: Store) -> int:
    with store.read() as session:
        return sum(session.scalar(select(func.count()).select_from(table)) or 0 for table in Base.metadata.sorted_tables)


def _recipe(world: World) -> str:
    """The soak's, without a generation from what was published: there is nothing in it that could generate."""
    path = world.folder / "hours.yaml"
    path.write_text(world.recipe.read_text(encoding="utf-8") + "read_back: none\n", encoding="utf-8")
    return str(path)


@contextmanager
def _simulated(world: World) -> Iterator[Clock]:
    """Every run goes the short way, and all that looks at a clock looks at this one. What compares it with the Hub's is left alone: that one is not set."""
    clock = Clock()
    clock.at = datetime.now(UTC)
    with pytest.MonkeyPatch.context() as patch:
        short(patch, world.folder / "built", _kept)
        for module in CLOCKS:
            patch.setattr(module, "datetime", clock)
        patch.setattr(housekeeping, "time", SimpleNamespace(monotonic=lambda: clock.now(UTC).timestamp()))
        yield clock
