"""What a poll of a large watch list costs: `python -m bench.polling` fills an embedded Hub with repos of many owners and prints calls and seconds.

Polls: the first, of which every repo is new; one after which nothing changed; one after some changed; and one of single repos by name, beside what that took
when each was asked for by a call of its own. Looks and runs, which follow a poll, are not counted.
"""

import argparse
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import structlog
from huggingface_hub import HfApi
from sqlalchemy import delete, insert

from config.settings import Settings, Watched
from hub.core import opened
from hub.repos import MAIN
from hub.server import running
from service.daemon.listing import Listings
from service.daemon.polling import Polled, poll
from service.release.datasets import recipe_for
from service.release.watchlist import asked
from service.store import Store, open_store
from service.store.tables import HintRow, LookRow

CHANGED = 20  # repos that change before the third poll
SINGLE = 300  # repos by name


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.polling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repos", type=int, default=10_000)
    parser.add_argument("--owners", type=int, default=50)
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with TemporaryDirectory(prefix="sluice-polling-") as name:
        folder = Path(name)
        owners = [f"owner-{number}" for number in range(given.owners)]
        repos = fill(folder / "hub", owners, given.repos // given.owners)
        with running(folder / "hub") as url, store(folder) as kept:
            settings = Settings(home=folder / "home", hub_endpoint=url, watch=(Watched(owners=tuple(owners), recipe="default"),))
            listings = Listings(HfApi(endpoint=url, token=False))
            print(f"{given.repos} repos of {given.owners} owners\n{'poll':28} {'calls':>6} {'hints':>6} {'seconds':>8}")
            show("the first", poll(kept, settings, listings))
            looked(kept, settings, listings)
            show("nothing changed", poll(kept, settings, listings))
            show("the same, after a restart", poll(kept, settings, Listings(listings.api)))
        change(folder / "hub", repos[:: max(1, len(repos) // CHANGED)][:CHANGED])
        with running(folder / "hub") as url, store(folder) as kept:
            settings = settings.with_(hub_endpoint=url)
            listings = Listings(HfApi(endpoint=url, token=False))
            show(f"{CHANGED} changed", poll(kept, settings, listings))
            few = tuple(repos[:: max(1, len(repos) // SINGLE)][:SINGLE])
            show(f"{len(few)} by name", poll(kept, settings.with_(watch=(Watched(repos=few),)), Listings(listings.api)))
            began = time.perf_counter()
            for repo in few:
                listings.api.model_info(repo)
            print(f"{'the same, a call for each':28} {len(few):6} {'':6} {time.perf_counter() - began:8.2f}")


def show(name: str, told: Polled) -> None:
    print(f"{name:28} {told.calls:6} {told.hints:6} {told.seconds:8.2f}", flush=True)


def fill(root: Path, owners: list[str], each: int) -> list[str]:
    """Repos in a new embedded Hub; their names."""
    names = [f"{owner}/model-{number}" for number in range(each) for owner in owners]
    root.mkdir()
    with hasty(), opened(root) as hub:
        for name in names:
            hub.repos.create(type="model", identity=name, private=False, author=name.partition("/")[0], change=lambda repo: repo)
    return names


def change(root: Path, names: list[str]) -> None:
    """A commit in each of these repos."""
    with hasty(), opened(root) as hub:
        for name in names:
            repo = hub.repos.find("model", name)
            assert repo is not None
            head = hub.repos.head(repo, MAIN)
            commit = hub.repos.save_commit(repo, parent=head.id, title="change", message="", author="bench", tree=head.tree)
            hub.repos.update(repo.uid, lambda repo, target=commit.id: repo.with_ref(MAIN, target))  # type: ignore[misc]


@contextmanager
def hasty() -> Iterator[None]:
    """Write without waiting for the disk: this Hub need not survive a power cut."""
    with patch.object(os, "fsync", lambda _: None):
        yield


@contextmanager
def store(folder: Path) -> Iterator[Store]:
    opened_store = open_store(f"sqlite:///{folder / 'sluice.db'}")
    try:
        yield opened_store
    finally:
        opened_store.close()


def looked(kept: Store, settings: Settings, listings: Listings) -> None:
    """As if every repo had been looked at."""
    digest = asked(recipe_for(settings, "default", listings.api).digest(), settings.namespace)
    found = [item for owner in settings.watch[0].owners for item in listings.of_owner(owner)]
    moment = datetime.now(UTC)
    with kept.write() as session:
        session.execute(insert(LookRow), [{"repo": item.repo, "revision": "main", "asked": digest, "sha": item.sha, "at": moment} for item in found])
        session.execute(delete(HintRow))


if __name__ == "__main__":
    main()
