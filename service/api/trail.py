"""Endpoints for who may ask, who did, and who was told: the tokens, the audit trail, and what was sent to the places of `notify`."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from service.api.access import Moment, Number, TheStore, Words, needing
from service.api.errors import problems
from service.api.tagging import Tagged
from service.runs.entries import DeliveryView, TokenView, delivery_view, token_view
from service.store import AuditFilter

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


class DeliveryPage(BaseModel):
    """Some messages, the newest first."""

    deliveries: list[DeliveryView]
    next: int | None
    """Give it as `before` to get the page after this one; null on the last page."""


class Sent(BaseModel):
    """Which messages to list."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=50, ge=1, le=200)
    before: Number | None = Field(default=None, description="Only messages with a smaller number: the `next` of the page before.")


@protected.get("/audit", summary="The audit trail, newest first")
def audit(store: TheStore, wanted: Annotated[Wanted, Query()]) -> EventPage:
    """One page of what happened, and by whom. Needs the scope `admin`, of all namespaces."""
    found = store.audit_events(limit=wanted.limit + 1, wanted=AuditFilter(**wanted.model_dump(exclude={"limit"})))
    page = found[: wanted.limit]
    return EventPage(events=[EventView(**vars(event)) for event in page], next=page[-1].id if len(found) > wanted.limit else None)


@protected.get("/tokens", summary="The tokens there are or were")
def tokens(store: TheStore) -> list[TokenView]:
    """With their last use. They are made and revoked by `sluice token` on the service's machine alone. Needs the scope `admin`, of all namespaces."""
    return [token_view(token) for token in store.tokens()]


@protected.get("/notifications/deliveries", summary="What the places of `notify` were sent, newest first")
def deliveries(store: TheStore, wanted: Annotated[Sent, Query()]) -> DeliveryPage:
    """One page of the messages about ends of runs, and how sending each went. Needs the scope `admin`, of all namespaces."""
    found = store.deliveries(limit=wanted.limit + 1, before=wanted.before)
    page = found[: wanted.limit]
    return DeliveryPage(deliveries=[delivery_view(item) for item in page], next=page[-1].id if len(found) > wanted.limit else None)
