"""What of a service a person should look at, beside its runs: what is still to do, what could not be queued, listed or released, what is stuck, a full disk."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel

from config.settings import Settings
from service.disk.space import space
from service.pulse import Sign, pulse
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


class Unwell(BaseModel):
    """A part of the service that is stuck, or fails."""

    part: str
    state: Literal["stuck", "fails"]
    said: str
    """The same in a sentence, and since when."""


class Attention(BaseModel):
    """What a person should look at; everything is empty where nothing is."""

    still_to_do: list[StillToDo]
    not_queued: list[NotQueued]
    not_listed: list[NotListed]
    unreleasable: list[Unreleasable]
    paused: str | None
    """Why no run is begun; null where nothing is in the way."""
    untaken: str | None = None
    """That runs wait which no worker takes; null where that is not so."""
    unwell: list[Unwell] = []
    """Of the service that answers; a command on its machine does not see them."""


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
        untaken=backlog.told if (backlog := store.backlog()).stuck and not there.paused else None,
        unwell=[Unwell(part=sign.part, state="stuck" if sign.stuck else "fails", said=_unwell(sign)) for sign in pulse.signs() if sign.stuck or sign.failing],
    )


def _unwell(sign: Sign) -> str:
    since = f"{sign.since:%Y-%m-%d %H:%M} UTC"
    if sign.stuck:
        return f"Nothing was heard of it since {since}{f', when it was at {sign.doing}' if sign.doing else ''}: look into the log, and start the service again."
    return f"Its work failed at {since} for a reason that nobody foresaw, and is tried again: the log tells which."


def _unreleasable(store: Store, settings: Settings) -> list[Unreleasable]:
    if not (settings.watch or store.watch_entries()):
        return []  # and nothing needs to be imported
    from service.release.checks.watch import unreleasable

    return [Unreleasable(repo=item.repo, recipe=item.recipe, error=item.error) for item in unreleasable(store, settings)]
