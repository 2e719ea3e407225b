"""Upstream repos as lists show them: how each is watched, what was seen of it, its last run, and what is published for it."""

import re
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel

from config.settings import Settings
from config.watch import Watched
from service.release.watchlist import entries, following
from service.runs.heads import RunHead, run_head
from service.store import RunFilter, RunState, Store, TokenRecord


class WatchedAs(BaseModel):
    """A way in which a repo is watched."""

    revision: str
    """Branch."""
    recipe: str


class SeenAt(BaseModel):
    """What a watched branch named when it was last looked at."""

    revision: str
    sha: str
    at: datetime


class Current(BaseModel):
    """A repo, or folder, that holds a publication for it, and no newer one."""

    publication: int
    repo: str
    """Or the folder's path."""
    revision: str
    """Commit of the publication; of a folder the beginning of the manifest's sha256."""
    url: str
    sha: str
    """The commit of the upstream that it was made from."""
    at: datetime


class UpstreamHead(BaseModel):
    """An upstream repo in the list of releases."""

    repo: str
    watched: list[WatchedAs]
    """Empty where no entry of the watch list follows a repo of this name."""
    seen: list[SeenAt]
    """The latest look first; empty where nothing that is released was found yet."""
    run: RunHead | None
    """The run of it that was queued last."""
    published: list[Current]


@dataclass(frozen=True, kw_only=True)
class UpstreamFilter:
    """Which upstream repos are wanted; None: whichever."""

    repo: str | None = None  # "owner/name"; `*` stands for anything
    state: RunState | None = None  # of the last run
    watched: bool | None = None
    after: str | None = None  # the name of the one before


def upstreams(store: Store, settings: Settings, wanted: UpstreamFilter, *, limit: int, token: TokenRecord | None = None) -> list[UpstreamHead]:
    """The upstream repos by name, at most `limit` of those that are wanted, as far as the token may see them; None: all that are watched or known.

    One that may see some namespaces alone is shown the repos that runs there are of.
    """
    watch = entries(store, settings)
    mine = RunFilter(state=wanted.state, namespaces=None if token is None else token.namespaces)
    names = _known(store, watch) if mine == RunFilter() else set(store.last_runs(mine))
    chosen = sorted((name for name in names if _wanted(name, wanted, watch)), key=_place)[:limit]
    runs = store.last_runs(RunFilter(namespaces=mine.namespaces), repos=chosen)
    seen: dict[str, list[SeenAt]] = {name: [] for name in chosen}
    for sight in store.seen(chosen):
        seen[sight.repo].append(SeenAt(revision=sight.revision, sha=sight.sha, at=sight.at))
    current: dict[str, list[Current]] = {name: [] for name in chosen}
    for run, item in store.published_for(chosen):
        if token is None or token.sees(run.namespace):
            found = Current(publication=item.id, repo=item.repo, revision=item.revision, url=item.url, sha=run.release.sha, at=item.at)
            current[run.release.repo].append(found)
    return [
        UpstreamHead(
            repo=name,
            watched=[WatchedAs(revision=entry.revision, recipe=entry.recipe) for entry in following(watch, name)],
            seen=seen[name],
            run=run_head(runs[name]) if name in runs else None,
            published=current[name],
        )
        for name in chosen
    ]


def _known(store: Store, watch: tuple[Watched, ...]) -> set[str]:
    """All repos that are known, and those that the watch list names, which nobody may have looked at yet."""
    known = set(store.known_repos())
    spelt = {name.lower() for name in known}
    return known | {name for entry in watch for name in entry.named if name.lower() not in spelt and entry.follows(name)}


def _wanted(name: str, wanted: UpstreamFilter, watch: tuple[Watched, ...]) -> bool:
    if wanted.after is not None and _place(name) <= _place(wanted.after):
        return False
    if wanted.repo is not None and not re.fullmatch(".*".join(map(re.escape, wanted.repo.split("*"))), name):
        return False
    return wanted.watched is None or bool(following(watch, name)) == wanted.watched


def _place(name: str) -> tuple[str, str]:
    return name.lower(), name
