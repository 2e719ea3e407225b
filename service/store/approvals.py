"""What a person has to decide before a release goes on, and the decisions: recorded with name, comment and time, each also in the audit trail."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Select, delete, select

from config.errors import SluiceError
from config.words import Hold, Patch
from service.store.database import Database, now
from service.store.ledger import note
from service.store.records import Approval, HoldRecord
from service.store.tables import HoldRow


class ApprovalRefused(SluiceError):
    """There is nothing to approve, or no approval to withdraw."""


class Approvals(Database):
    """The holds of runs."""

    def record_holds(self, run: int, holds: Sequence[Hold]) -> None:
        """Keep what has to be decided of a run, in the place of what had to be before; an approval stays with exactly what was approved."""
        with self.write() as session:
            before = {_hold(row).digest for row in session.scalars(_of(run))}
            wanted = {hold.digest for hold in holds}
            for row in session.scalars(_of(run)).all():
                if _hold(row).digest not in wanted:
                    session.execute(delete(HoldRow).where(HoldRow.id == row.id))
            session.flush()
            for hold in holds:
                if hold.digest not in before:
                    session.add(HoldRow(run_id=run, **asdict(hold)))
                    note(session, "release", f"run/{run}", "held", {"subject": hold.subject, "reason": hold.reason})

    def holds(self, run: int) -> tuple[HoldRecord, ...]:
        """What has, or had, to be decided of the run."""
        with self.read() as session:
            return tuple(_record(row) for row in session.scalars(_of(run)))

    def approve(self, run: int, subject: str, *, by: str, comment: str, source: str, details: dict[str, Any] | None = None) -> HoldRecord:
        """Record that what the run is held for may be done as it was proposed; `details` go into the audit trail. Raises ApprovalRefused."""
        with self.write() as session:
            row = _held(session.scalars(_of(run, subject).with_for_update()).first(), run, subject)
            if row.approved_at is not None:
                raise ApprovalRefused(f"The {subject} of run {run} is approved already, by {row.approved_by}. Withdraw it by --withdraw if it is not to stand.")
            row.approved_by, row.comment, row.approved_at = by, comment, now()
            session.flush()
            note(session, source, f"run/{run}", "approved", {"subject": subject, "by": by, "comment": comment, **(details or {})})
            return _record(row)

    def withdraw_approval(self, run: int, subject: str, *, by: str, comment: str, source: str, details: dict[str, Any] | None = None) -> None:
        """Remove the approval; the audit trail keeps that it was there. Raises ApprovalRefused when there is none."""
        with self.write() as session:
            row = _held(session.scalars(_of(run, subject).with_for_update()).first(), run, subject)
            if row.approved_at is None:
                raise ApprovalRefused(f"The {subject} of run {run} is not approved. `sluice status {run}` shows what is.")
            row.approved_by = row.comment = row.approved_at = None
            note(session, source, f"run/{run}", "approval withdrawn", {"subject": subject, "by": by, "comment": comment, **(details or {})})


def _of(run: int, subject: str | None = None) -> Select[HoldRow]:
    query = select(HoldRow).where(HoldRow.run_id == run).order_by(HoldRow.id)
    return query if subject is None else query.where(HoldRow.subject == subject)


def _held(row: HoldRow | None, run: int, subject: str) -> HoldRow:
    if row is None:
        raise ApprovalRefused(f"Run {run} is not held for its {subject}. `sluice status {run}` shows what it is held for.")
    return row


def _hold(row: HoldRow) -> Hold:
    return Hold(subject=row.subject, reason=row.reason, patches=tuple(Patch(**patch) for patch in row.patches))


def _record(row: HoldRow) -> HoldRecord:
    approval = None
    if row.approved_at is not None:
        approval = Approval(by=row.approved_by or "", comment=row.comment or "", at=row.approved_at)
    return HoldRecord(run=row.run_id, hold=_hold(row), approval=approval)
