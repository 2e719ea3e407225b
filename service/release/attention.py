"""What of a service a person should look at, beside its runs: what is still to do, what could not be queued, listed or released, and a full disk."""

from datetime import datetime

from pydantic import BaseModel

from config.settings import Settings
from service.disk.space import space
from service.runs.again import of_follow_up
from service.store import Store, TokenRecord


class StillToDo(BaseModel):
    """What is still to do for a run that is done."""

    run: int
    said: str
    """What, and when it is tried again."""


class NotQueued(BaseModel):
    """A watched repo that could not be looked at, or whose release could not be queued."""

    repo: str
    due: datetime
    """When it is looked at again."""
    error: str


class NotListed(BaseModel):
    """An owner whose repos could not be listed at the last poll."""

    owner: str
    at: datetime
    error: str


class Unreleasable(BaseModel):
    """An entry of the watch list that cannot be released as it is now."""

    repo: str
    recipe: str
    error: str


class Attention(BaseModel):
    """What a person should look at; everything is empty where nothing is."""

    still_to_do: list[StillToDo]
    not_queued: list[NotQueued]
    not_listed: list[NotListed]
    unreleasable: list[Unreleasable]
    paused: str | None
    """Why no run is begun; null where nothing is in the way."""


def attention(store: Store, settings: Settings, token: TokenRecord | None = None) -> Attention:
    """What to look at, as far as the token may see it; None: everything. What is of no namespace is shown to those alone that see all."""
    everything = token is None or token.namespaces is None
    there = space(settings)
    return Attention(
        still_to_do=[
            StillToDo(run=item.run, said=of_follow_up(item))
            for item in store.follow_ups()
            if everything or (token is not None and token.sees(store.run(item.run).namespace))
        ],
        not_queued=[NotQueued(repo=hint.repo, due=hint.due, error=hint.error) for hint in store.hints() if hint.error] if everything else [],
        not_listed=[NotListed(owner=item.owner, at=item.at, error=item.error) for item in store.listings() if item.error] if everything else [],
        unreleasable=_unreleasable(store, settings) if everything else [],
        paused=there.told if there.paused else None,
    )


def _unreleasable(store: Store, settings: Settings) -> list[Unreleasable]:
    if not (settings.watch or store.watch_entries()):
        return []  # and nothing needs to be imported
    from service.release.checks.watch import unreleasable

    return [Unreleasable(repo=item.repo, recipe=item.recipe, error=item.error) for item in unreleasable(store, settings)]
