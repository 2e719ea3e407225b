"""Writes that count only while something is as it was seen: it is looked at in the write's own transaction, in which nobody else changes it."""

import copy
from collections.abc import Callable, Mapping
from typing import Literal, Self

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from service.store.database import Database
from service.store.outside import WatchRow
from service.store.tables import PublicationRow, ReleaseRow, RunRow

Kind = Literal["run", "publication", "entry"]

# SQLite knows no row locks, but its writers exclude others; a run's release is locked before it, as where runs are queued, or two could block one another
_LOCKS: Mapping[Kind, Callable[[int], tuple[Select[int], ...]]] = {
    "run": lambda id: (
        select(ReleaseRow.id).join(RunRow, RunRow.release_id == ReleaseRow.id).where(RunRow.id == id).with_for_update(of=ReleaseRow),
        select(RunRow.id).where(RunRow.id == id).with_for_update(),
    ),
    "publication": lambda id: (select(PublicationRow.id).where(PublicationRow.id == id).with_for_update(),),
    "entry": lambda id: (select(WatchRow.id).where(WatchRow.id == id).with_for_update(),),
}


class Conditions(Database):
    """The database for writes under a condition."""

    def provided(self, kind: Kind, id: int, check: Callable[[Self], None]) -> Self:
        """The same database, whose next write begins with the check and comes to nothing if that raises.

        The check is given the database as that transaction sees it. Whoever else asks for something under a condition on the same thing waits meanwhile, and
        so does whoever changes it.
        """

        def first(session: Session) -> None:
            for lock in _LOCKS[kind](id):
                session.execute(lock)
            check(self.inside(session))
            session.expire_all()  # what was seen without its own lock is read again by whoever changes it

        found = copy.copy(self)
        found._condition = first
        return found
