"""Endpoints for who may ask and who did: the audit trail, and the tokens."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from service.api.access import Moment, Number, TheStore, Words, needing
from service.api.errors import problems
from service.api.tagging import Tagged
from service.store import AuditFilter, Scope

protected = APIRouter(tags=["audit"], route_class=Tagged, dependencies=[Depends(needing("admin"))], responses=problems(401, 403, 422, 429))


class EventView(BaseModel):
    """Something that happened; never changed afterwards."""

    id: int
    at: datetime
    source: str
    """By which way: `api`, `dashboard`, `command`, `poll`, `webhook`, …"""
    subject: str
    """To what: `run/7`, `publication/3`, `token/ci`, `login/192.0.2.7`."""
    action: str
    details: dict[str, Any]


class EventPage(BaseModel):
    """Some events, the newest first."""

    events: list[EventView]
    next: int | None
    """Give it as `before` to get the page after this one; null on the last page."""


class Wanted(BaseModel):
    """Which events to list; all that is given must hold."""

    model_config = ConfigDict(extra="forbid")

    subject: Words | None = None
    source: Words | None = None
    action: Words | None = None
    since: Moment | None = Field(default=None, description="Then or later.")
    until: Moment | None = Field(default=None, description="Before.")
    limit: int = Field(default=100, ge=1, le=1000)
    before: Number | None = Field(default=None, description="Only events with a smaller number: the `next` of the page before.")


class TokenView(BaseModel):
    """A token, without its secret."""

    name: str
    scopes: list[Scope]
    namespaces: list[str] | None
    """Whose runs it may see and steer; null: of all."""
    created: datetime
    expires: datetime | None
    used: datetime | None
    """The last time, to the minute."""
    revoked: datetime | None


@protected.get("/audit", summary="The audit trail, newest first")
def audit(store: TheStore, wanted: Annotated[Wanted, Query()]) -> EventPage:
    """One page of what happened, and by whom. Needs the scope `admin`, of all namespaces."""
    found = store.audit_events(limit=wanted.limit + 1, wanted=AuditFilter(**wanted.model_dump(exclude={"limit"})))
    page = found[: wanted.limit]
    return EventPage(events=[EventView(**vars(event)) for event in page], next=page[-1].id if len(found) > wanted.limit else None)


@protected.get("/tokens", summary="The tokens there are or were")
def tokens(store: TheStore) -> list[TokenView]:
    """With their last use. They are made and revoked by `sluice token` on the service's machine alone. Needs the scope `admin`, of all namespaces."""
    return [
        TokenView(
            name=token.name,
            scopes=list(token.scopes),
            namespaces=None if token.namespaces is None else list(token.namespaces),
            created=token.created,
            expires=token.expires,
            used=token.used,
            revoked=token.revoked,
        )
        for token in store.tokens()
    ]
