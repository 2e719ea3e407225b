"""Who may ask for what: API tokens, and the sessions of people who signed in with one. Of both only a hash is kept."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import CursorResult, delete, or_, select, update
from sqlalchemy.exc import IntegrityError

from service.store.database import Database, StoreError, now
from service.store.ledger import note
from service.store.outside import SessionRow, TokenRow
from service.store.records import Scope, TokenRecord

USED_SECONDS = 60.0  # between two notes that a token is in use


@dataclass(frozen=True, kw_only=True)
class Grant:
    """What a new token may do."""

    scopes: tuple[Scope, ...] = ("admin",)
    namespaces: tuple[str, ...] | None = None  # whose runs it may see and steer; None: all
    expires: datetime | None = None


EVERYTHING = Grant()


class Access(Database):
    """Tokens and sessions."""

    def add_token(self, name: str, digest: str, grant: Grant = EVERYTHING) -> None:
        """Keep a new API token as its sha256. Raises StoreError when the name was ever used: the audit trail must stay unambiguous."""
        namespaces = None if grant.namespaces is None else list(grant.namespaces)
        row = TokenRow(name=name, digest=digest, created=now(), scopes=list(grant.scopes), namespaces=namespaces, expires=grant.expires)
        try:
            with self.write() as session:
                session.add(row)
                expires = None if grant.expires is None else grant.expires.isoformat()
                note(session, "command", f"token/{name}", "created", {"scopes": list(grant.scopes), "namespaces": namespaces, "expires": expires})
        except IntegrityError as error:
            raise StoreError(f"There is or was a token named {name!r}. Choose another name.") from error

    def tokens(self) -> tuple[TokenRecord, ...]:
        """Every token there is or was, oldest first."""
        with self.read() as session:
            return tuple(_record(row) for row in session.scalars(select(TokenRow).order_by(TokenRow.id)))

    def revoke_token(self, name: str) -> None:
        """Make the token stop working. Raises StoreError when no working token has that name."""
        with self.write() as session:
            live = update(TokenRow).where(TokenRow.name == name, TokenRow.revoked.is_(None)).values(revoked=now())
            if cast("CursorResult[Any]", session.execute(live)).rowcount == 0:
                raise StoreError(f"There is no working token named {name!r}. `sluice token list` shows those there are.")
            note(session, "command", f"token/{name}", "revoked", {})

    def token_used(self, token: TokenRecord) -> None:
        """Note that the token is in use, once a minute at most."""
        since = now() - timedelta(seconds=USED_SECONDS)
        if token.used is not None and token.used > since:
            return
        with self.write() as session:
            session.execute(update(TokenRow).where(TokenRow.id == token.id, or_(TokenRow.used.is_(None), TokenRow.used <= since)).values(used=now()))

    def add_session(self, digest: str, token: TokenRecord, *, seconds: float, client: str) -> None:
        """Keep that somebody signed in with the token, for so long; sessions that are over are forgotten."""
        with self.write() as session:
            session.execute(delete(SessionRow).where(SessionRow.expires <= now()))
            session.add(SessionRow(digest=digest, token_id=token.id, created=now(), expires=now() + timedelta(seconds=seconds)))
            note(session, "dashboard", f"token/{token.name}", "signed in", {"client": client})

    def session_token(self, digest: str) -> TokenRecord | None:
        """The working token of a session that is not over; None when there is none."""
        query = select(TokenRow).join(SessionRow, SessionRow.token_id == TokenRow.id).where(SessionRow.digest == digest, SessionRow.expires > now())
        with self.read() as session:
            row = session.scalars(query).first()
            found = None if row is None else _record(row)
        return found if found is not None and found.works(now()) else None

    def end_session(self, digest: str) -> None:
        """Forget a session."""
        with self.write() as session:
            session.execute(delete(SessionRow).where(SessionRow.digest == digest))


def _record(row: TokenRow) -> TokenRecord:
    return TokenRecord(
        id=row.id,
        name=row.name,
        digest=row.digest,
        created=row.created,
        revoked=row.revoked,
        scopes=tuple(cast("list[Scope]", row.scopes)),
        namespaces=None if row.namespaces is None else tuple(row.namespaces),
        expires=row.expires,
        used=row.used,
    )
