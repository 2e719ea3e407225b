"""The tables of whom the service deals with: tokens, sessions, requests, what they ask to watch, places that are told. A change needs a migration."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from service.store.tables import Base


class TokenRow(Base):
    """An API token, as the sha256 of its secret."""

    __tablename__ = "api_tokens"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    created: Mapped[datetime]
    revoked: Mapped[datetime | None]
    scopes: Mapped[list[str]] = mapped_column(server_default='["admin"]')
    namespaces: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))  # whose runs it may see; null: of all
    expires: Mapped[datetime | None]
    used: Mapped[datetime | None]


class SessionRow(Base):
    """A person who signed in with a token, as the sha256 of what the browser keeps."""

    __tablename__ = "sessions"

    id: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    token_id: Mapped[int] = mapped_column(ForeignKey("api_tokens.id"))
    created: Mapped[datetime]
    expires: Mapped[datetime]


class AnswerRow(Base):
    """The answer to a request that carried an idempotency key, so that the same request is answered alike and done once."""

    __tablename__ = "answers"
    __table_args__ = (UniqueConstraint("caller", "key"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    caller: Mapped[str] = mapped_column(String(64))  # sha256 of the token
    key: Mapped[str] = mapped_column(String(255))
    request: Mapped[str] = mapped_column(String(64))  # sha256 of method, path and body
    begun: Mapped[datetime]
    status: Mapped[int | None]  # null while the request is at work
    location: Mapped[str | None] = mapped_column(Text)
    body: Mapped[str | None] = mapped_column(Text)


class PlaceRow(Base):
    """A place of `notify`, and the last audit event that it was, or needed not be, told."""

    __tablename__ = "told_places"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40), unique=True)
    event: Mapped[int]


class DeliveryRow(Base):
    """A message to a place, and how sending it went."""

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("place", "event"),
        Index(None, "state", "due"),
        CheckConstraint("state IN ('pending', 'delivered', 'given_up')", name="state"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    place: Mapped[str] = mapped_column(String(40))
    event: Mapped[int]  # of the audit trail
    subject: Mapped[str] = mapped_column(String(250))
    ending: Mapped[str] = mapped_column(String(16))
    body: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int]
    error: Mapped[str | None] = mapped_column(Text)
    created: Mapped[datetime]
    due: Mapped[datetime]


class UsedRow(Base):
    """A signed request that was carried out, kept as long as its signature is good."""

    __tablename__ = "used_requests"

    id: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    at: Mapped[datetime] = mapped_column(index=True)


class WatchRow(Base):
    """An entry of the watch list that was added over the network."""

    __tablename__ = "watch_entries"

    id: Mapped[int] = mapped_column(primary_key=True)
    entry: Mapped[dict[str, Any]]  # of config.watch.Watched
    by: Mapped[str] = mapped_column(String(100))  # name of a token
    created: Mapped[datetime]
