"""What people ask of runs: to be cancelled, put aside for a while, gone on with, or carried out before others. Each is in the audit trail."""

from typing import Any, cast

from sqlalchemy import select

from config.errors import SluiceError
from service.store.database import Database, now
from service.store.ledger import note
from service.store.queue import close_stages, locked, run_record, state_of
from service.store.records import RunRecord, Wanted
from service.store.tables import RunRow

PRIORITIES = range(-100, 101)


class SteeringRefused(SluiceError):
    """The run is in no state in which that can be asked of it."""


class Steering(Database):
    """The wishes. One about a run that is being carried out is kept until whoever carries it out reads it."""

    def cancel(self, run: int, *, source: str, details: dict[str, Any]) -> RunRecord:
        """End the run: at once where nobody is at it, else soon. Raises UnknownRun, SteeringRefused when it has ended."""
        with self.write() as session:
            row = locked(session, run)
            if state_of(row) == "running":
                row.wanted = "cancel"
            elif row.state in {"queued", "held", "paused", "running"}:
                row.state, row.finished, row.worker, row.lease_until = "cancelled", now(), None, None
                close_stages(session, run)
            else:
                raise SteeringRefused(f"Run {run} is {row.state} already, so there is nothing to cancel.")
            note(session, source, f"run/{run}", "cancelled" if row.wanted is None else "cancel asked", details)
            return run_record(row)

    def pause(self, run: int, *, source: str, details: dict[str, Any]) -> RunRecord:
        """Put the run aside: at once where it waits, else after the stage at hand. Raises UnknownRun, SteeringRefused when it neither waits nor works."""
        with self.write() as session:
            row = locked(session, run)
            if state_of(row) == "running" and row.wanted is None:
                row.wanted = "pause"
            elif row.state == "queued" or state_of(row) == "interrupted":
                row.state, row.worker, row.lease_until = "paused", None, None
                close_stages(session, run)
            else:
                asked = f"to be {row.wanted}{'d' if row.wanted == 'pause' else 'led'}" if row.wanted else row.state
                raise SteeringRefused(f"Run {run} is {asked}. Only a run that is queued or carried out can be paused.")
            note(session, source, f"run/{run}", "paused" if row.wanted is None else "pause asked", details)
            return run_record(row)

    def resume(self, run: int, *, source: str, details: dict[str, Any]) -> RunRecord:
        """Put a paused run back to its place in the queue, or let one go on that was to be paused. Raises UnknownRun, SteeringRefused when it is neither."""
        with self.write() as session:
            row = locked(session, run)
            if row.state == "paused":
                row.state, row.trigger = "queued", source  # a person wants it by now, whoever asked for it first
            elif row.wanted == "pause":
                row.wanted = None
            else:
                raise SteeringRefused(f"Run {run} is not paused, it is {state_of(row)}.")
            note(session, source, f"run/{run}", "resumed", details)
            return run_record(row)

    def wanted(self, run: int) -> Wanted | None:
        """What a person asked of the run since it was begun; None for nothing."""
        with self.read() as session:
            return cast("Wanted | None", session.scalar(select(RunRow.wanted).where(RunRow.id == run)))

    def prioritize(self, run: int, priority: int, *, source: str, details: dict[str, Any]) -> RunRecord:
        """Carry the run out before those with a lower priority (-100 to 100; 0 unless set). Raises UnknownRun, SteeringRefused when that makes no sense."""
        refuse_priority(priority)
        with self.write() as session:
            row = locked(session, run)
            row.priority = priority
            note(session, source, f"run/{run}", "prioritized", {"priority": priority, **details})
            return run_record(row)


def refuse_priority(priority: int) -> None:
    """Raise SteeringRefused for a number that is no priority."""
    if priority not in PRIORITIES:
        raise SteeringRefused(f"A priority is a whole number from {PRIORITIES[0]} to {PRIORITIES[-1]}, not {priority}.")
