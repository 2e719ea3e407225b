"""What comes in and what is remembered: hints that a repo may have changed, and the audit trail that only grows."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, case, delete, null, or_, select, update
from sqlalchemy.orm import Session

from service.store.database import Database, due_at, is_due, now, upserting
from service.store.records import AuditFilter, AuditRecord, HintRecord
from service.store.tables import AuditRow, HintRow

ALL = AuditFilter()
POLL = "poll"  # says so of hints that nobody asked for
_REQUEST = re.compile(r" \(request [^()]*\)")


def note(session: Session, source: str, subject: str, action: str, details: dict[str, Any]) -> None:
    """Add an audit event to the transaction that does what the event tells."""
    session.add(AuditRow(at=now(), source=source, subject=subject, action=action, details=details))


def same_fault(one: str, other: str | None) -> bool:
    """Whether two errors tell the same: the trail only grows, and the number that a Hub gives each request makes no fault another one."""
    return other is not None and _REQUEST.sub("", one) == _REQUEST.sub("", other)


def put_hints(session: Session, sources: Mapping[str, str], *, rebuild: bool) -> None:
    """Leave hints in the transaction; see `Ledger.put_hints`."""
    moment = now()
    common = {"count": 1, "attempts": 0, "created": moment, "due": moment, "rebuild": rebuild, "rebuilt": None}
    rows = [{"repo": repo, "source": source, **common} for repo, source in sorted(sources.items())]  # in one order, or two services could block one another
    new = upserting(session, HintRow)
    again = {
        "source": case((new.excluded.source == POLL, HintRow.source), else_=new.excluded.source),
        "count": HintRow.count + 1,
        "due": new.excluded.due,
        "created": case((new.excluded.rebuild, new.excluded.created), else_=HintRow.created),
        "rebuild": or_(HintRow.rebuild, new.excluded.rebuild),
        "rebuilt": case((new.excluded.rebuild, null()), else_=HintRow.rebuilt),
    }
    session.execute(new.on_conflict_do_update(index_elements=[HintRow.repo], set_=again), rows)


class Ledger(Database):
    """Hints and audit events."""

    def audit(self, source: str, subject: str, action: str, details: dict[str, Any]) -> None:
        """Remember for ever that `source` did `action` to `subject`, e.g. "api", "publication/3", "republish"."""
        with self.write() as session:
            note(session, source, subject, action, details)

    def audit_events(self, *, subject: str | None = None, limit: int = 100, wanted: AuditFilter = ALL) -> tuple[AuditRecord, ...]:
        """The newest events first, at most `limit`, of those that are wanted; `subject` as in `AuditFilter`."""
        wanted = replace(wanted, subject=subject or wanted.subject)
        query = select(AuditRow).order_by(AuditRow.id.desc()).limit(limit).where(*_matching(wanted))
        with self.read() as session:
            return tuple(
                AuditRecord(id=row.id, at=row.at, source=row.source, subject=row.subject, action=row.action, details=row.details)
                for row in session.scalars(query)
            )

    def put_hints(self, sources: Mapping[str, str], *, rebuild: bool = False) -> None:
        """Note of repos that they may have changed, to be looked at now, each with who says so; `rebuild`: they are to be released though they did not.

        Said again while the look is pending, it is still one look. What a power cut undoes of this the next poll finds again, but no wish to rebuild.
        """
        if sources:
            with self.write(hasty=not rebuild) as session:
                put_hints(session, sources, rebuild=rebuild)

    def hints(self, *, due: bool = False) -> tuple[HintRecord, ...]:
        """The pending hints, oldest first; with `due` only those to be looked at now."""
        query = select(HintRow).order_by(HintRow.due, HintRow.id)
        if due:
            query = query.where(is_due(HintRow.due))
        with self.read() as session:
            return tuple(_record(row) for row in session.scalars(query))

    def next_hint(self) -> HintRecord | None:
        """The hint to be looked at now; None when none is. A wish to rebuild comes first, then what a webhook told, and what polls found at last."""
        order = (HintRow.rebuild.desc(), HintRow.source == POLL, HintRow.due, HintRow.id)
        with self.read() as session:
            row = session.scalars(select(HintRow).where(is_due(HintRow.due)).order_by(*order).limit(1)).first()
            return None if row is None else _record(row)

    def settle_hint(self, hint: HintRecord) -> None:
        """The look that `hint` asked for was had. A hint that was given again meanwhile stays: what it tells may be newer than the look."""
        with self.write() as session:
            _keep_rebuilt(session, hint)
            session.execute(delete(HintRow).where(*_same(hint)))

    def defer_hint(self, hint: HintRecord, *, error: str, seconds: float) -> None:
        """The look failed: keep the hint, and what it says is `rebuilt`, and look again after `seconds`, or sooner when the hint is given again.

        The same failure again is no new event.
        """
        with self.write() as session:
            _keep_rebuilt(session, hint)
            later = {"attempts": HintRow.attempts + 1, "error": error, "due": now() + timedelta(seconds=seconds)}
            session.execute(update(HintRow).where(*_same(hint)).values(later))
            if not same_fault(error, hint.error):
                note(session, hint.source, f"repo/{hint.repo}", "deferred", {"error": error})


def _matching(wanted: AuditFilter) -> Iterator[ColumnElement[bool]]:
    for name in ("subject", "source", "action"):
        if (value := getattr(wanted, name)) is not None:
            yield getattr(AuditRow, name) == value
    if wanted.since is not None:
        yield AuditRow.at >= wanted.since
    if wanted.until is not None:
        yield AuditRow.at < wanted.until
    if wanted.before is not None:
        yield AuditRow.id < wanted.before


def _record(row: HintRow) -> HintRecord:
    return HintRecord(**{item.name: getattr(row, item.name) for item in fields(HintRecord)} | {"due": due_at(row.due), "rebuilt": tuple(row.rebuilt or ())})


def _keep_rebuilt(session: Session, hint: HintRecord) -> None:
    """Write down for which entries that is done, whatever else was said of the repo meanwhile, unless a rebuild was asked for again."""
    mine = update(HintRow).where(HintRow.repo == hint.repo, HintRow.created == hint.created)
    session.execute(mine.values(rebuilt=list(hint.rebuilt) or None))


def _same(hint: HintRecord) -> tuple[ColumnElement[bool], ...]:
    """The hint as it was when it was read: not given again, nor settled and given anew."""
    return HintRow.repo == hint.repo, HintRow.created == hint.created, HintRow.count == hint.count
