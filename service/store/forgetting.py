"""Forgets what is old: runs with all that hangs on them, what was said of them, and, beyond its horizon, the audit trail. What explains a publication stays.

Numbers are not given twice: SQLite takes the next number after the largest that is there, so the newest run, publication and event always stay.
"""

import logging
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from sqlalchemy import ColumnElement, CursorResult, Delete, Select, String, and_, delete, func, insert, literal, not_, or_, select
from sqlalchemy import cast as as_type
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from service.store.database import Database
from service.store.openings import REMEMBERED
from service.store.outside import AnswerRow, DeliveryRow, SessionRow, UsedRow
from service.store.references import ENDED
from service.store.tables import (
    ArtifactRow,
    AuditRow,
    Base,
    FollowUpRow,
    HoldRow,
    HorizonRow,
    MeasurementRow,
    PatchRow,
    PublicationRow,
    PullRequestRow,
    RecipeRow,
    ReleaseRow,
    RunRow,
    StageRow,
    VerdictRow,
    WaiverRow,
)

log = logging.getLogger(__name__)

BATCH = 100  # runs forgotten in one transaction, so that others wait for no more than that
HANGING: tuple[type[Base], ...] = (PatchRow, WaiverRow, HoldRow, PublicationRow, PullRequestRow, FollowUpRow)  # on a run, and nothing on them
OPEN = ("opened", "open")  # states of pull requests that are still asked about
WASTE, SMALL = 0.2, 2**20  # of a SQLite file that is free, and bytes of it, from which it is written anew


@dataclass(frozen=True, kw_only=True)
class Horizons:
    """What is older goes."""

    runs: datetime  # by their end
    messages: datetime
    audit: datetime


class Forgetting(Database):
    """See the module."""

    def forget(self, horizons: Horizons, *, dry_run: bool = False) -> dict[str, int]:
        """Forget what is beyond the horizons; how many there were, or would be, of each kind of record, without those of which there are none."""
        with self.read() as session:
            over = list(_over(session, horizons.runs))
        found = Counter[str]()
        if dry_run:
            with self.write() as session, session.begin_nested() as undone:
                found += _forget_runs(session, over)
                found += _forget_rest(session, horizons)
                undone.rollback()
        else:
            for begin in range(0, len(over), BATCH):
                with self.write() as session:
                    found += _forget_runs(session, _still(session, over[begin : begin + BATCH], horizons.runs))
            with self.write() as session:
                found += _forget_rest(session, horizons)
        return {name: count for name, count in sorted(found.items()) if count}

    def size(self) -> int:
        """Bytes that the database takes."""
        with self.read() as session:
            if self._engine.dialect.name == "postgresql":
                return int(session.scalar(select(func.pg_database_size(func.current_database()))) or 0)
            pages, page = (session.connection().exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("page_count", "page_size"))
            return int(pages) * int(page)

    def compact(self) -> bool:
        """Give the space of what was forgotten back: a SQLite file shrinks, where much of it is free; PostgreSQL uses it again. Whether anything was done.

        Writers wait meanwhile, so it is for times when nothing is at work.
        """
        if self._engine.dialect.name == "postgresql":
            return self._vacuumed()
        import sqlite3

        driver = self._engine.raw_connection()
        try:
            cursor = driver.cursor()
            free, pages, page = (cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in ("freelist_count", "page_count", "page_size"))
            if free < WASTE * pages or free * page < SMALL:
                return False
            cursor.execute("VACUUM")
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.OperationalError as error:  # somebody is at it, or the disk has no room for a second copy: another time
            log.info("the database stays as large as it is: %s", error, extra={"action": "compact"})
            return False
        finally:
            driver.close()
        return True

    def _vacuumed(self) -> bool:
        """The same of PostgreSQL, where a table takes as long as it takes, and one that somebody has locked keeps it for another time."""
        try:
            with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.detach()  # it ends with what is set here, and nobody else is given it
                connection.exec_driver_sql("SET statement_timeout = 0")
                for table in Base.metadata.sorted_tables:
                    connection.exec_driver_sql(f"VACUUM (ANALYZE) {table.name}")
        except OperationalError as error:
            log.info("the database stays as large as it is: %s", error.orig, extra={"action": "compact"})
            return False
        return True


def _ended() -> ColumnElement[datetime]:
    return func.coalesce(RunRow.finished, RunRow.started, RunRow.queued)


def _over(session: Session, before: datetime) -> Iterator[int]:
    """Runs that ended before then, and are neither published now nor the newest of their kind, nor have anything left to do."""
    published = session.execute(select(PublicationRow.repo, PublicationRow.run_id).order_by(PublicationRow.at, PublicationRow.id))
    needed = {run for _, run in {repo: (repo, run) for repo, run in published}.values()}
    needed |= set(session.scalars(select(FollowUpRow.run_id)))
    needed |= set(session.scalars(select(PullRequestRow.run_id).where(PullRequestRow.state.in_(OPEN))))
    needed |= set(session.scalars(select(RunRow.id).order_by(RunRow.id.desc()).limit(1)))
    needed |= set(session.scalars(select(PublicationRow.run_id).order_by(PublicationRow.id.desc()).limit(1)))
    ended = _ended()
    rows = session.execute(
        select(RunRow.id, RunRow.state, ended, ReleaseRow.repo, RunRow.recipe, RunRow.namespace).join(ReleaseRow).order_by(ended.desc(), RunRow.id.desc())
    )
    seen = set[tuple[Any, ...]]()
    for run, state, last, *like in rows:
        newest = tuple(like) not in seen
        seen.add(tuple(like))
        if not newest and run not in needed and state in ENDED and last < before:
            yield run


def _still(session: Session, runs: Sequence[int], before: datetime) -> list[int]:
    """Those of them that nobody took up again since; nobody does until the transaction ends."""
    query = select(RunRow).where(RunRow.id.in_(runs), RunRow.state.in_(ENDED), _ended() < before).order_by(RunRow.id)
    return [row.id for row in session.scalars(query.with_for_update(of=RunRow, skip_locked=True))]


def _forget_runs(session: Session, runs: Collection[int]) -> Counter[str]:
    stages = select(StageRow.id).where(StageRow.run_id.in_(runs))
    verdicts = select(VerdictRow.id).where(VerdictRow.run_id.in_(runs))
    _count(session, delete(ArtifactRow).where(ArtifactRow.stage_id.in_(stages)))
    _count(session, delete(MeasurementRow).where(MeasurementRow.verdict_id.in_(verdicts)))
    steps = _count(session, delete(StageRow).where(StageRow.run_id.in_(runs)))
    _count(session, delete(VerdictRow).where(VerdictRow.run_id.in_(runs)))
    for table in HANGING:
        _count(session, delete(table).where(table.run_id.in_(runs)))  # type: ignore[attr-defined]
    return Counter(steps=steps, runs=_count(session, delete(RunRow).where(RunRow.id.in_(runs))))


def _forget_rest(session: Session, horizons: Horizons) -> Counter[str]:
    """What does not hang on runs, or hung on those that are gone."""
    found = Counter[str]()
    found["steps"] = _forget_steps(session, horizons.messages)
    used = select(RunRow.recipe_digest)
    found["recipes"] = _count(session, delete(RecipeRow).where(RecipeRow.at < horizons.messages, RecipeRow.digest.not_in(used)))
    _count(session, delete(ReleaseRow).where(ReleaseRow.created < horizons.messages, ReleaseRow.id.not_in(select(RunRow.release_id))))
    found["messages"] = _count(session, delete(DeliveryRow).where(DeliveryRow.state != "pending", DeliveryRow.created < horizons.messages))
    found["requests"] = _count(session, delete(AnswerRow).where(AnswerRow.begun < horizons.messages))
    found["requests"] += _count(session, delete(UsedRow).where(UsedRow.at < horizons.messages))
    found["sessions"] = _count(session, delete(SessionRow).where(SessionRow.expires < horizons.messages))
    found["events"] = _forget_events(session, horizons.audit)
    return found


def _forget_steps(session: Session, before: datetime) -> int:
    """Steps of ended runs that were begun again since."""
    later = select(func.max(StageRow.id)).group_by(StageRow.run_id, StageRow.name)
    ended = select(RunRow.id).where(RunRow.state.in_(ENDED))
    over = and_(StageRow.started < before, StageRow.run_id.in_(ended), StageRow.id.not_in(later))
    _count(session, delete(ArtifactRow).where(ArtifactRow.stage_id.in_(select(StageRow.id).where(over))))
    return _count(session, delete(StageRow).where(over))


def _forget_events(session: Session, before: datetime) -> int:
    """Events that tell of nothing that is known any more; the triggers let them go as long as there is a horizon."""
    known = or_(*(AuditRow.subject.in_(_subjects(kind, table)) for kind, table in (("run", RunRow), ("publication", PublicationRow))))
    remembered = and_(AuditRow.subject.startswith("repo/"), AuditRow.action.in_(REMEMBERED))  # see `service.store.openings`
    newest = select(func.max(AuditRow.id)).scalar_subquery()
    session.execute(insert(HorizonRow).values(id=1, at=before))
    count = _count(session, delete(AuditRow).where(AuditRow.at < before, not_(known), not_(remembered), AuditRow.id != newest))
    session.execute(delete(HorizonRow))
    return count


def _subjects(kind: str, table: type[RunRow] | type[PublicationRow]) -> Select[Any]:
    return select(literal(f"{kind}/") + as_type(table.id, String))


def _count(session: Session, statement: Delete) -> int:
    return int(cast("CursorResult[Any]", session.execute(statement.execution_options(synchronize_session=False))).rowcount)
