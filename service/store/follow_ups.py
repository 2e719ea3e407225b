"""What is still to do for runs that are done: it failed, is no reason to call the run failed, and is tried again until it is done."""

from datetime import timedelta
from typing import Any, cast

from sqlalchemy import CursorResult, delete, select, update

from service.store.database import Database, due_at, is_due, now
from service.store.ledger import note, same_fault
from service.store.records import FollowUpRecord
from service.store.tables import FollowUpRow

CLAIM = 600.0  # seconds that a follow-up is left to whoever took it


class FollowUps(Database):
    """At most one of a kind for each run."""

    def put_follow_up(self, run: int, kind: str, details: dict[str, Any], *, error: str, seconds: float, source: str) -> None:
        """Have it tried again after so many seconds; `error` says why it is not done yet."""
        with self.write() as session:
            row = session.scalars(select(FollowUpRow).where(FollowUpRow.run_id == run, FollowUpRow.kind == kind)).first()
            if row is None:
                session.add(row := FollowUpRow(run_id=run, kind=kind, attempts=0, error=""))
            if not same_fault(error, row.error):
                note(session, source, f"run/{run}", f"{kind} deferred", {"error": error})
            row.details, row.error, row.due, row.attempts = details, error, now() + timedelta(seconds=seconds), row.attempts + 1

    def settle_follow_up(self, run: int, kind: str, *, source: str) -> None:
        """It is done; nothing happens where none was to be done."""
        with self.write() as session:
            found = delete(FollowUpRow).where(FollowUpRow.run_id == run, FollowUpRow.kind == kind)
            if cast("CursorResult[Any]", session.execute(found)).rowcount:
                note(session, source, f"run/{run}", f"{kind} done", {})

    def follow_ups(self, run: int | None = None) -> tuple[FollowUpRecord, ...]:
        """All that are to be done, the next first; only those of a run."""
        query = select(FollowUpRow).order_by(FollowUpRow.due, FollowUpRow.id)
        if run is not None:
            query = query.where(FollowUpRow.run_id == run)
        with self.read() as session:
            return tuple(_record(row) for row in session.scalars(query))

    def take_follow_up(self, kind: str) -> FollowUpRecord | None:
        """One of that kind that is due, which nobody else is given for a while; None when there is none."""
        with self.write() as session:
            query = select(FollowUpRow).where(FollowUpRow.kind == kind, is_due(FollowUpRow.due)).order_by(FollowUpRow.due, FollowUpRow.id).limit(1)
            if (row := session.scalars(query.with_for_update(skip_locked=True)).first()) is None:
                return None
            session.execute(update(FollowUpRow).where(FollowUpRow.id == row.id).values(due=now() + timedelta(seconds=CLAIM)))
            return _record(row)


def _record(row: FollowUpRow) -> FollowUpRecord:
    return FollowUpRecord(run=row.run_id, kind=row.kind, details=row.details, attempts=row.attempts, error=row.error, due=due_at(row.due))
