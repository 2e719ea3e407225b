"""What comes in and what is remembered: hints that a repo may have changed, API tokens, and the audit trail that only grows."""

from collections.abc import Mapping
from dataclasses import fields
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import ColumnElement, CursorResult, delete, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.store.database import Database, StoreError, now
from service.store.records import AuditRecord, HintRecord, TokenRecord
from service.store.tables import AuditRow, HintRow, TokenRow

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite


def note(session: Session, source: str, subject: str, action: str, details: dict[str, Any]) -> None:
    """Add an audit event to the transaction that does what the event tells."""
    session.add(AuditRow(at=now(), source=source, subject=subject, action=action, details=details))


class Ledger(Database):
    """Hints, tokens and audit events."""

    def audit(self, source: str, subject: str, action: str, details: dict[str, Any]) -> None:
        """Remember for ever that `source` did `action` to `subject`, e.g. "api", "publication/3", "republish"."""
        with self.write() as session:
            note(session, source, subject, action, details)

    def audit_events(self, *, subject: str | None = None, limit: int = 100) -> tuple[AuditRecord, ...]:
        """The newest events first, at most `limit`; only those about `subject`."""
        query = select(AuditRow).order_by(AuditRow.id.desc()).limit(limit)
        if subject is not None:
            query = query.where(AuditRow.subject == subject)
        with self.read() as session:
            return tuple(
                AuditRecord(id=row.id, at=row.at, source=row.source, subject=row.subject, action=row.action, details=row.details)
                for row in session.scalars(query)
            )

    def put_hint(self, repo: str, source: str, *, rebuild: bool = False) -> None:
        """Note that `repo` may have changed, to be looked at now. Said again while the look is pending, it is still one look."""
        self.put_hints({repo: source}, rebuild=rebuild)

    def put_hints(self, sources: Mapping[str, str], *, rebuild: bool = False) -> None:
        """Note of many repos at once that they may have changed, each with who says so; `rebuild`: they are to be released though they did not.

        What a power cut undoes of this the next poll finds again, but no wish to rebuild.
        """
        moment = now()
        common = {"count": 1, "attempts": 0, "created": moment, "due": moment, "rebuild": rebuild}
        rows = [{"repo": repo, "source": source, **common} for repo, source in sorted(sources.items())]  # in one order, or two services could block one another
        if not rows:
            return
        with self.write(hasty=not rebuild) as session:
            new = _upserting(session)
            again = {
                "source": new.excluded.source,
                "count": HintRow.count + 1,
                "due": new.excluded.due,
                "rebuild": or_(HintRow.rebuild, new.excluded.rebuild),
            }
            session.execute(new.on_conflict_do_update(index_elements=[HintRow.repo], set_=again), rows)

    def hints(self, *, due: bool = False) -> tuple[HintRecord, ...]:
        """The pending hints, oldest first; with `due` only those to be looked at now."""
        query = select(HintRow).order_by(HintRow.due, HintRow.id)
        if due:
            query = query.where(HintRow.due <= now())
        with self.read() as session:
            return tuple(HintRecord(**{item.name: getattr(row, item.name) for item in fields(HintRecord)}) for row in session.scalars(query))

    def settle_hint(self, hint: HintRecord) -> None:
        """The look that `hint` asked for was had. A hint that was given again meanwhile stays: what it tells may be newer than the look."""
        with self.write() as session:
            session.execute(delete(HintRow).where(*_same(hint)))

    def defer_hint(self, hint: HintRecord, *, error: str, seconds: float) -> None:
        """The look failed: keep the hint and look again after `seconds`, or sooner when the hint is given again. The same failure again is no new event."""
        with self.write() as session:
            later = {"attempts": HintRow.attempts + 1, "error": error, "due": now() + timedelta(seconds=seconds)}
            session.execute(update(HintRow).where(*_same(hint)).values(later))
            if error != hint.error:
                note(session, hint.source, f"repo/{hint.repo}", "deferred", {"error": error})

    def add_token(self, name: str, digest: str) -> None:
        """Keep a new API token as its sha256. Raises StoreError when the name was ever used: the audit trail must stay unambiguous."""
        try:
            with self.write() as session:
                session.add(TokenRow(name=name, digest=digest, created=now()))
                note(session, "command", f"token/{name}", "created", {})
        except IntegrityError as error:
            raise StoreError(f"There is or was a token named {name!r}. Choose another name.") from error

    def tokens(self) -> tuple[TokenRecord, ...]:
        """Every token there is or was, oldest first."""
        with self.read() as session:
            rows = session.scalars(select(TokenRow).order_by(TokenRow.id))
            return tuple(TokenRecord(id=row.id, name=row.name, digest=row.digest, created=row.created, revoked=row.revoked) for row in rows)

    def revoke_token(self, name: str) -> None:
        """Make the token stop working. Raises StoreError when no working token has that name."""
        with self.write() as session:
            live = update(TokenRow).where(TokenRow.name == name, TokenRow.revoked.is_(None)).values(revoked=now())
            if cast("CursorResult[Any]", session.execute(live)).rowcount == 0:
                raise StoreError(f"There is no working token named {name!r}. `sluice token list` shows those there are.")
            note(session, "command", f"token/{name}", "revoked", {})


def _same(hint: HintRecord) -> tuple[ColumnElement[bool], ...]:
    """The hint as it was when it was read: not given again, nor settled and given anew."""
    return HintRow.repo == hint.repo, HintRow.created == hint.created, HintRow.count == hint.count


def _upserting(session: Session) -> "sqlite.Insert | postgresql.Insert":
    """An insertion of hints that can say what becomes of those that are there, as the session's database has it; the other dialect is not imported."""
    if session.get_bind().dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as into_postgresql

        return into_postgresql(HintRow)
    from sqlalchemy.dialects.sqlite import insert as into_sqlite

    return into_sqlite(HintRow)
