"""Runs that are held and that nobody need decide about any more, since something newer took their place."""

from collections.abc import Iterator
from datetime import datetime

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from service.store.database import Database
from service.store.ledger import note
from service.store.queue import alike, run_record
from service.store.records import RunOrder, RunRecord
from service.store.tables import PublicationRow, ReleaseRow, RunRow


class Undecided(Database):
    """Held runs."""

    def undecided(self, order: RunOrder) -> tuple[RunRecord, ...]:
        """The held runs of the order's repo, recipe and namespace, oldest first."""
        with self.read() as session:
            return tuple(run_record(row) for row in session.scalars(alike(order).where(RunRow.state == "held").order_by(RunRow.id)))

    def give_up(self, run: int, *, error: str) -> bool:
        """Supersede a held run, which its `error` gives the reason of; False where it is not held any more.

        It ended when it began to be held: what it made is no younger for that, and takes no newer run's place on the disk.
        """
        with self.write() as session:
            held = select(RunRow).where(RunRow.id == run, RunRow.state == "held")
            row = session.scalars(held.with_for_update(of=RunRow)).first()
            if row is not None:
                row.state, row.error = "superseded", error
                note(session, row.trigger, f"run/{run}", row.state, {"error": error})
            return row is not None

    def give_up_old(self, before: datetime) -> int:
        """Supersede runs that are held since before then, and of whose kind a newer one is held or published; how many there were."""
        with self.read() as session:
            old = list(_old(session, before))
        told = "It was held for as long as records of runs are kept, and nobody decided about it. Run {newer}, which is newer, takes its place."
        return sum(self.give_up(run, error=told.format(newer=newer)) for run, newer in old)


def _old(session: Session, before: datetime) -> Iterator[tuple[int, int]]:
    """Held runs that began to be before then, each with the newest run of its kind that is held or published, which is another one."""
    ended = func.coalesce(RunRow.finished, RunRow.started, RunRow.queued)
    rows = session.execute(
        select(RunRow.id, RunRow.state, ended, ReleaseRow.repo, RunRow.recipe, RunRow.namespace)
        .join(ReleaseRow)
        .where(or_(RunRow.state == "held", RunRow.id.in_(select(PublicationRow.run_id))))
        .order_by(ended.desc(), RunRow.id.desc())
    )
    newest = dict[tuple[str, str, str], int]()
    for run, state, last, repo, recipe, namespace in rows:
        newer = newest.setdefault((repo, recipe, namespace), run)
        if newer != run and state == "held" and last < before:
            yield run, newer
