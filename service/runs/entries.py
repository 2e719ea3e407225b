"""Tokens and messages as lists of them say: what `sluice token list` and `sluice notify list` print, the API answers and the dashboard shows."""

from datetime import UTC, datetime
from typing import Literal, cast

from pydantic import BaseModel

from service.logs import redact
from service.store import DeliveryRecord, Scope, TokenRecord


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

    @property
    def works(self) -> bool:
        """Whether it still does."""
        return self.revoked is None and (self.expires is None or self.expires > datetime.now(UTC))


class DeliveryView(BaseModel):
    """A message to a place of `notify` about the end of a run, and how sending it went."""

    id: int
    place: str
    """Its name in the settings."""
    subject: str
    """What it is about: `run/7`."""
    ending: str
    """How that ended: `published`, `blocked`, `failed`, `held`, `superseded`."""
    state: Literal["pending", "delivered", "given_up"]
    attempts: int
    error: str | None
    """Of the last attempt."""
    created: datetime
    due: datetime
    """The next attempt, while it is pending."""


def token_view(token: TokenRecord) -> TokenView:
    """A token's record as it is listed."""
    return TokenView(
        name=token.name,
        scopes=list(token.scopes),
        namespaces=None if token.namespaces is None else list(token.namespaces),
        created=token.created,
        expires=token.expires,
        used=token.used,
        revoked=token.revoked,
    )


def delivery_view(item: DeliveryRecord) -> DeliveryView:
    """A message's record as it is listed."""
    return DeliveryView(
        id=item.id,
        place=item.place,
        subject=item.subject,
        ending=item.ending,
        state=cast('Literal["pending", "delivered", "given_up"]', item.state),
        attempts=item.attempts,
        error=None if item.error is None else redact(item.error),
        created=item.created,
        due=item.due,
    )
