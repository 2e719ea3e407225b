"""What a person has to decide before a release goes on, and the decisions: recorded with name, comment and time, each also in the audit trail."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Select, delete, select

from config.errors import SluiceError
from config.words import Hold, Patch
from service.store.database import Database, now
from service.store.ledger import note
from service.store.queue import enqueued, locked, run_record
from service.store.records import Approval, HoldRecord, RunRecord, order_of
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

    def approve(self, run: int, wanted: Sequence[Hold], *, by: str, comment: str, source: str, details: Mapping[str, Any] | None = None) -> RunRecord:
        """Record that what the run is held for may be done as it was proposed, and queue it again once nothing is undecided: all of it or nothing.

        Raises UnknownRun, and ApprovalRefused, also where the run is not held any more, or for something else by now than what was shown.
        """
        with self.write() as session:
            record = run_record(locked(session, run))
            if record.state != "held":
                raise ApprovalRefused(f"Run {run} is not held, it is {record.state}. There is nothing to approve.")
            for hold in wanted:
                row = _held(session.scalars(_of(run, hold.subject).with_for_update()).first(), run, hold.subject)
                if _hold(row).digest != hold.digest:
                    raise changed(run, hold.subject)
                if row.approved_at is not None:
                    raise ApprovalRefused(
                        f"The {hold.subject} of run {run} is approved already, by {row.approved_by}. Withdraw it by --withdraw if it is not to stand."
                    )
                row.approved_by, row.comment, row.approved_at = by, comment, now()
                note(session, source, f"run/{run}", "approved", {"subject": hold.subject, "by": by, "comment": comment, **(details or {})})
            session.flush()
            if all(row.approved_at is not None for row in session.scalars(_of(run))):
                return enqueued(session, order_of(record, trigger="approval"), again=True)[0]
            return record

    def withdraw_approval(self, run: int, subject: str, *, by: str, comment: str, source: str, details: Mapping[str, Any] | None = None) -> None:
        """Remove the approval; the audit trail keeps that it was there. Raises ApprovalRefused when there is none."""
        with self.write() as session:
            row = _held(session.scalars(_of(run, subject).with_for_update()).first(), run, subject)
            if row.approved_at is None:
                raise ApprovalRefused(f"The {subject} of run {run} is not approved. `sluice status {run}` shows what is.")
            row.approved_by = row.comment = row.approved_at = None
            note(session, source, f"run/{run}", "approval withdrawn", {"subject": subject, "by": by, "comment": comment, **(details or {})})


def changed(run: int, subject: str) -> ApprovalRefused:
    """The refusal of an approval of something else than what the run is held for by now."""
    return ApprovalRefused(f"What run {run} is held for ({subject}) is not what was shown any more. Nothing was approved: `sluice status {run}` shows it.")


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
