"""Gates that a person set aside: recorded with name, comment and time, each change of them also in the audit trail."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Select, delete, select
from sqlalchemy.exc import IntegrityError

from config.errors import SluiceError
from config.words import Outcome, Waiver
from service.store.database import Database, now
from service.store.ledger import note
from service.store.records import WaiverRecord
from service.store.tables import WaiverRow


class WaiverRefused(SluiceError):
    """The waiver cannot be given or withdrawn."""


class Waivers(Database):
    """The waivers of runs."""

    def waive(self, run: int, waiver: Waiver, *, source: str, details: Mapping[str, Any] | None = None) -> WaiverRecord:
        """Record the waiver; `details` go into the audit trail. Raises WaiverRefused when the gate is waived for the variant already."""
        row = WaiverRow(run_id=run, tag=waiver.tag, gate=waiver.gate, outcome=waiver.outcome.value, by=waiver.by, comment=waiver.comment, at=now())
        try:
            with self.write() as session:
                session.add(row)
                session.flush()
                told = {"gate": waiver.gate, "variant": waiver.tag, "outcome": waiver.outcome.value, "by": waiver.by, "comment": waiver.comment}
                note(session, source, f"run/{run}", "waived", told | dict(details or {}))
                return _record(row)
        except IntegrityError as error:
            raise WaiverRefused(
                f"The gate {waiver.gate} of {waiver.tag} in run {run} is waived already; `sluice gates {run}` shows by whom and why. "
                "Withdraw that waiver with --withdraw if another one is to stand."
            ) from error

    def withdraw_waiver(self, run: int, gate: str, tag: str, *, source: str, details: Mapping[str, Any]) -> None:
        """Remove the waiver; the audit trail keeps that it was there, and in `details` who withdrew it. Raises WaiverRefused when there is none."""
        with self.write() as session:
            held = session.scalars(_of(run, tag, gate).with_for_update()).first()
            if held is None:
                raise WaiverRefused(f"The gate {gate} of {tag} in run {run} is not waived. `sluice gates {run}` shows what is.")
            session.execute(delete(WaiverRow).where(WaiverRow.id == held.id))
            note(session, source, f"run/{run}", "waiver withdrawn", {"gate": gate, "variant": tag, **details})

    def waivers(self, run: int) -> tuple[WaiverRecord, ...]:
        """The run's waivers in the order in which they were given."""
        with self.read() as session:
            return tuple(_record(row) for row in session.scalars(select(WaiverRow).where(WaiverRow.run_id == run).order_by(WaiverRow.id)))


def _of(run: int, tag: str, gate: str) -> Select[WaiverRow]:
    return select(WaiverRow).where(WaiverRow.run_id == run, WaiverRow.tag == tag, WaiverRow.gate == gate)


def _record(row: WaiverRow) -> WaiverRecord:
    waiver = Waiver(tag=row.tag, gate=row.gate, by=row.by, comment=row.comment, outcome=Outcome(row.outcome))
    return WaiverRecord(id=row.id, run=row.run_id, waiver=waiver, at=row.at)
