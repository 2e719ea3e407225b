"""Runs as a queue in the database: put in once, leased by one worker at a time, taken over when a worker is gone.

Leases compare the clocks of the machines that share a database: these must agree to well under the length of a lease.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Literal, cast

from sqlalchemy import ColumnElement, Select, and_, delete, not_, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from config.errors import SluiceError
from config.words import Release, Rollback
from service.store.database import Database, due_at, is_due, now
from service.store.ledger import note
from service.store.owner import is_gone, is_held
from service.store.records import ROLLBACK, RunFilter, RunOrder, RunRecord, RunState, Sighting, Wanted
from service.store.sightings import place_in, sighted
from service.store.tables import HintRow, HoldRow, PublicationRow, ReleaseRow, RunRow, StageRow

CRASHES = 3  # workers in a row that end without a word before they have ended a stage, until a run is given up
FINISHED = ("done", "blocked", "held", "superseded", "failed", "cancelled", "paused")  # and not queued again by itself
UNWANTED = ("cancelled", "paused")  # by a person, whom nothing but a person overrules
ASKED: dict[str, Literal["cancelled", "paused"]] = {"cancel": "cancelled", "pause": "paused"}  # as what a run ends of which that is wanted
IN_FOLDER = " in folder "  # no namespace holds a space
ALL = RunFilter()


class LeaseLost(BaseException):
    """Another worker has the run by now, or nobody has. Not an Exception: a stage must not take it for its own failure, and nothing is to be written of it."""


class UnknownRun(SluiceError):
    """No run has that number."""


class Queue(Database):
    """The runs."""

    def enqueue(self, order: RunOrder, *, again: bool = False, attempts: int | None = None, seen: Sighting | None = None) -> tuple[RunRecord, bool]:
        """The one run of the order's release, recipe and namespace, and whether this call put it into the queue.

        A failed run is queued again, unless it was already tried `attempts` times. A run that is done, blocked, held or superseded is queued again only with
        `again`; one that a person cancelled or paused only where a person asks again, who names no `attempts`. One that is queued or running is left as it is,
        except that it becomes private, offers its fixes or may roll back when the order says so; one that waits for the Hub waits no longer when a person asks.
        What a watched revision was `seen` to name, where it moved, is kept as `Sightings.sight` does: what a person said of an earlier move does not count for
        this one.
        """
        with self.write() as session:
            if seen is not None:
                sighted(session, seen)
            run, queued = enqueued(session, order, again=again, attempts=attempts)
            if seen is not None and queued:
                session.execute(delete(HoldRow).where(HoldRow.run_id == run.id, HoldRow.subject == ROLLBACK))
            return run, queued

    def ordered(self, order: RunOrder) -> RunRecord | None:
        """The run of the order's release, recipe and namespace; None when it was never queued."""
        return self._first(alike(order).where(ReleaseRow.sha == order.release.sha))

    def newest(self, order: RunOrder) -> RunRecord | None:
        """The run of the order's repo, recipe and namespace that was begun last and did not give way to another, whichever release it is of; None: no run."""
        return self._first(alike(order).where(RunRow.state != "superseded").order_by(RunRow.queued.desc(), RunRow.id.desc()))

    def published(self, order: RunOrder) -> RunRecord | None:
        """The run of the order's repo, recipe and namespace that published last, whichever release it is of; None when none did."""
        query = alike(order).join(PublicationRow, PublicationRow.run_id == RunRow.id)
        return self._first(query.order_by(PublicationRow.at.desc(), PublicationRow.id.desc()))

    def _first(self, query: Select[RunRow]) -> RunRecord | None:
        with self.read() as session:
            row = session.scalars(query.limit(1)).first()
            return None if row is None else run_record(row)

    def lease(self, worker: str, *, seconds: float, run: int | None = None, overdue: bool = True) -> RunRecord | None:
        """Take the run that waits longest of those with the highest priority (or run number `run`, even if it waits for the Hub); None when there is none.

        To take are queued runs, and running ones whose worker was a process of this host that has ended, or, if `overdue`, whose lease has run out. That is an
        attempt that failed: a run of which several in a row come to nothing is given up, and the next one taken.
        """
        wanted: list[ColumnElement[bool]] = [] if run is None else [RunRow.id == run]
        with self.write() as session:
            due = [] if run is not None else [or_(RunRow.due.is_(None), is_due(RunRow.due))]
            while True:
                stale = and_(RunRow.state == "running", left_behind(session, *wanted, overdue=overdue))
                begun = or_(and_(RunRow.state == "queued", *due), stale)
                free = select(RunRow).where(begun, *wanted).order_by(RunRow.priority.desc(), RunRow.queued, RunRow.id)
                # SQLite knows no row locks, but its writers exclude others
                row = session.scalars(free.limit(1).with_for_update(of=RunRow, skip_locked=True)).first()
                if row is None:
                    return None
                if row.state == "queued" or not _crashed(session, row):
                    break
            row.state, row.worker, row.lease_until, row.lease = "running", worker, now() + timedelta(seconds=seconds), row.lease + 1
            row.started, row.error, row.due = row.started or now(), None, None
            close_stages(session, row.id)
            return run_record(row)

    def prove_lease(self, run: int, lease: int, *, seconds: float = 0.0) -> Wanted | None:
        """What a person asked of the run that is carried out under the lease of that number, which is held for `seconds` at least. Raises LeaseLost."""
        with self.write() as session:
            row = leased(session, run, lease)
            if row.lease_until is not None:
                row.lease_until = max(due_at(row.lease_until), now() + timedelta(seconds=seconds))
            return cast("Wanted | None", row.wanted)

    def renew(self, run: int, worker: str, seconds: float) -> bool:
        """Hold the lease for `seconds` from now at least; False when `worker` no longer has it."""
        until = now() + timedelta(seconds=seconds)
        with self.write() as session:
            row = session.scalars(select(RunRow).where(RunRow.id == run, RunRow.state == "running", RunRow.worker == worker).with_for_update(of=RunRow)).first()
            if row is not None:
                row.lease_until = max(until, due_at(row.lease_until or until))
            return row is not None

    def release(self, run: int, worker: str) -> bool:
        """Put a leased run back at its place in the queue, unfinished, or where a person wants it; False when `worker` no longer has it."""
        with self.write() as session:
            row = session.scalars(select(RunRow).where(RunRow.id == run, RunRow.state == "running", RunRow.worker == worker).with_for_update(of=RunRow)).first()
            if row is not None:
                _put_back(session, row)
            return row is not None

    def defer(self, run: int, lease: int, *, error: str, seconds: float) -> RunRecord:
        """Put a run that is carried out under the lease of that number back, to be taken again after so many seconds; it costs no attempt.

        One that a person wants to end or to wait ends or waits, as the record tells. Raises LeaseLost.
        """
        with self.write() as session:
            row = leased(session, run, lease)
            row.crashes = 0
            close_stages(session, run)
            _put_back(session, row)
            if row.state == "queued":
                row.error, row.due, row.waits = error, now() + timedelta(seconds=seconds), row.waits + 1
                note(session, row.trigger, f"run/{run}", "deferred", {"error": error, "until": row.due.isoformat()})
            return run_record(row)

    def hasten(self) -> None:
        """Let no run and no look at a repo wait any longer: whatever they wait for, a restart may have cured."""
        with self.write() as session:
            session.execute(update(RunRow).where(RunRow.state == "queued", RunRow.due.is_not(None)).values(due=None))
            session.execute(update(HintRow).where(HintRow.attempts > 0).values(due=now()))

    def finish(
        self,
        run: int,
        *,
        state: Literal["done", "blocked", "held", "superseded", "failed", "cancelled", "paused"],
        error: str | None = None,
        disk_high_water: int | None = None,
        lease: int | None = None,
    ) -> bool:
        """Write down how a running run ended; False, and nothing written, when it is not running, or `lease` is given and is another one by now.

        That one came to its end before it could be left as a person asked is told as its error.
        """
        with self.write() as session:
            row = session.scalars(select(RunRow).where(RunRow.id == run, RunRow.state == "running").with_for_update(of=RunRow)).first()
            if row is None or (lease is not None and row.lease != lease):
                return False
            if row.wanted is not None and state in {"done", "blocked"}:
                error = f"It was {'published' if state == 'done' else 'blocked'} before it could be {ASKED[row.wanted]}."
            elif row.wanted == "cancel":
                state = "cancelled"  # however it ended: no poll is to take it up again
            row.state, row.error, row.disk_high_water, row.finished = state, error, disk_high_water, None if state == "paused" else now()
            row.worker = row.lease_until = row.wanted = None
            row.redo = row.redo if state == "paused" else None
            row.waits = row.crashes = 0
            close_stages(session, run)
            note(session, row.trigger, f"run/{run}", state, {} if error is None else {"error": error})
            return True

    def run(self, id: int) -> RunRecord:
        """The run of that number. Raises UnknownRun."""
        with self.read() as session:
            row = session.get(RunRow, id)
            if row is None:
                raise UnknownRun(f"There is no run {id}. `sluice status` lists the runs there are.")
            return run_record(row)

    def runs(self, limit: int = 50, state: RunState | None = None, before: int | None = None, *, wanted: RunFilter = ALL) -> tuple[RunRecord, ...]:
        """The newest runs first, at most `limit`, of those that are wanted; `state` and `before` as in `RunFilter`."""
        wanted = replace(wanted, state=state or wanted.state, before=wanted.before if before is None else before)
        with self.read() as session:
            query = select(RunRow).join(ReleaseRow, ReleaseRow.id == RunRow.release_id).where(*matching(session, wanted))
            return tuple(run_record(row) for row in session.scalars(query.order_by(RunRow.id.desc()).limit(limit)))

    def waiting(self) -> tuple[RunRecord, ...]:
        """The queued runs in the order in which they will be taken."""
        query = select(RunRow).where(RunRow.state == "queued").order_by(RunRow.priority.desc(), RunRow.queued, RunRow.id)
        with self.read() as session:
            return tuple(run_record(row) for row in session.scalars(query))


def enqueued(session: Session, order: RunOrder, *, again: bool = False, attempts: int | None = None) -> tuple[RunRecord, bool]:
    """See `Queue.enqueue`, in the transaction of what leads to it."""
    run, created = _run_row(session, _release_row(session, order.release), order)
    retried = run.state == "failed" and (attempts is None or run.attempt < attempts)
    repeated = run.state in FINISHED and again and (attempts is None or run.state not in UNWANTED)
    if retried or repeated:
        run.state, run.trigger, run.recipe, run.attempt = "queued", order.trigger, order.recipe, run.attempt + 1
        run.queued, run.started, run.finished, run.error, run.waits, run.wanted = now(), None, None, None, 0, None
    if attempts is None:
        run.due = None
        run.trigger = order.trigger if run.state == "queued" else run.trigger
    if again:
        run.crashes = 0  # whoever asks for it may have repaired what they came of
    queued = created or retried or repeated
    run.folder = order.folder  # wherever it lies now, it holds the same
    run.private = order.private or (run.private and not queued)
    run.fixes_as_pr = order.fixes_as_pr or (run.fixes_as_pr and not queued)
    if not _decided(run, order, anew=repeated) and (order.rollback is not None or (queued and not retried)):  # what was allowed is not so for ever
        run.rollback = None if order.rollback is None else asdict(order.rollback)
    if queued:
        run.redo = list(order.redo) or None
        details = {"repo": order.release.repo, "sha": order.release.sha, "recipe": order.recipe, "attempt": run.attempt}
        if run.rollback is not None:
            details["rollback"] = run.rollback["comment"]
        note(session, order.trigger, f"run/{run.id}", "queued", details)
    return run_record(run), queued


def alike(order: RunOrder) -> Select[RunRow]:
    """The runs of the order's repo, recipe and namespace."""
    query = select(RunRow).join(ReleaseRow, ReleaseRow.id == RunRow.release_id).where(ReleaseRow.repo == order.release.repo)
    return query.where(RunRow.recipe_digest == order.recipe_digest, RunRow.namespace == place_of(order))


def matching(session: Session, wanted: RunFilter) -> Iterator[ColumnElement[bool]]:
    """What of runs and their releases, which the query has joined, has to hold."""
    if wanted.before is not None:
        yield RunRow.id < wanted.before
    if wanted.repo is not None:
        parts = [_literal(part) for part in wanted.repo.split("*")]
        yield ReleaseRow.repo == wanted.repo if len(parts) == 1 else ReleaseRow.repo.like("%".join(parts), escape="\\")
    if wanted.recipe is not None:
        yield RunRow.recipe == wanted.recipe
    if wanted.since is not None:
        yield RunRow.created >= wanted.since
    if wanted.until is not None:
        yield RunRow.created < wanted.until
    if wanted.namespaces is not None:
        folders = [_literal(name + IN_FOLDER) + "%" for name in wanted.namespaces]
        yield or_(RunRow.namespace.in_(wanted.namespaces), *(RunRow.namespace.like(pattern, escape="\\") for pattern in folders))
    if wanted.state in {"running", "interrupted"}:
        left = left_behind(session)
        yield and_(RunRow.state == "running", left if wanted.state == "interrupted" else not_(left))
    elif wanted.state is not None:
        yield RunRow.state == wanted.state


def _literal(text: str) -> str:
    """The text as a LIKE pattern that matches it alone."""
    return "".join(f"\\{letter}" if letter in "\\%_" else letter for letter in text)


def left_behind(session: Session, *wanted: ColumnElement[bool], overdue: bool = True) -> ColumnElement[bool]:
    """Of a running run: its worker was a process of this host that has ended, or, if `overdue`, its lease has run out."""
    workers = session.scalars(select(RunRow.worker).where(RunRow.state == "running", *wanted)).all()
    gone = RunRow.worker.in_([name for name in workers if name is not None and is_gone(name)])
    return or_(is_due(RunRow.lease_until), gone) if overdue else gone


def locked(session: Session, run: int) -> RunRow:
    """The run's row, which nobody else changes until the transaction ends. Raises UnknownRun."""
    row = session.scalars(select(RunRow).where(RunRow.id == run).with_for_update(of=RunRow)).first()
    if row is None:
        raise UnknownRun(f"There is no run {run}. `sluice status` lists the runs there are.")
    return row


def leased(session: Session, run: int, lease: int) -> RunRow:
    """The run's row, locked, if it is carried out under the lease of that number. Raises LeaseLost."""
    row = session.scalars(select(RunRow).where(RunRow.id == run, RunRow.state == "running", RunRow.lease == lease).with_for_update(of=RunRow)).first()
    if row is None:
        raise LeaseLost(f"run {run} is not carried out under lease {lease} any more")
    return row


def _decided(run: RunRow, order: RunOrder, *, anew: bool) -> bool:
    """Whether a person let a run that has not ended well yet take the place of just what the order names, without anybody having decided it."""
    before, wanted = run.rollback, order.rollback
    return not anew and before is not None and before["by"] is not None and wanted is not None and wanted.by is None and wanted.sha == before["sha"]


def _put_back(session: Session, row: RunRow) -> None:
    """Let nobody carry the run out any more: it waits for its turn, unless a person wanted something else of it meanwhile."""
    row.worker = row.lease_until = None
    row.state = "queued"
    if row.wanted is not None:
        row.state, row.wanted, row.waits = ASKED[row.wanted], None, 0
        row.finished = now() if row.state == "cancelled" else None
        close_stages(session, row.id)
        note(session, row.trigger, f"run/{row.id}", row.state, {})


def _crashed(session: Session, row: RunRow) -> bool:
    """Count an attempt whose worker ended without a word; whether that was one too many, so that the run is given up."""
    at = session.scalars(select(StageRow.name).where(StageRow.run_id == row.id, StageRow.state == "running").order_by(StageRow.id)).all()
    row.crashes += 1
    note(session, row.trigger, f"run/{row.id}", "abandoned", {"worker": row.worker, "at": list(at), "in a row": row.crashes})
    if row.crashes < CRASHES:
        row.attempt += 1
        return False
    row.state, row.finished, row.worker, row.lease_until, row.crashes = "failed", now(), None, None, 0
    where = f", the last time at {', '.join(at)}" if at else ""
    row.error = (
        f"The process that carried it out ended without a word {CRASHES} times in a row{where}: it was killed, ran out of memory, or the machine went down. "
        "The logs of the service and of the kernel may tell which. Once that is repaired, start the run again."
    )
    close_stages(session, row.id)
    note(session, row.trigger, f"run/{row.id}", "failed", {"error": row.error})
    return True


def close_stages(session: Session, run: int) -> None:
    """Write down that whatever stages of the run are still said to be at work were interrupted."""
    session.execute(update(StageRow).where(StageRow.run_id == run, StageRow.state == "running").values(state="interrupted"))


def state_of(row: RunRow) -> RunState:
    """The run's state as it is, which is interrupted when nobody carries it out who could write that down."""
    until = None if row.lease_until is None else due_at(row.lease_until)
    return "interrupted" if row.state == "running" and not is_held(row.worker, until) else cast("RunState", row.state)


def _release_row(session: Session, release: Release) -> ReleaseRow:
    query = select(ReleaseRow).where(ReleaseRow.repo == release.repo, ReleaseRow.sha == release.sha)
    if (row := session.scalars(query.with_for_update()).first()) is not None:
        return row
    try:
        with session.begin_nested():
            session.add(row := ReleaseRow(repo=release.repo, sha=release.sha, created=now()))
    except IntegrityError:  # another process was first
        return session.scalars(query.with_for_update()).one()
    return row


def place_of(order: RunOrder) -> str:
    """What stands under `namespace`, which tells runs apart: with a digest of the folder where repos are left in one, so that such a run is one of its own."""
    return order.namespace if order.target is None else f"{order.namespace}{IN_FOLDER}{hashlib.sha256(order.target.encode()).hexdigest()[:16]}"


def _run_row(session: Session, release: ReleaseRow, order: RunOrder) -> tuple[RunRow, bool]:
    """The run's row, and whether it is new. Holding the release's row lock, nobody else can be making the same one."""
    query = select(RunRow).where(RunRow.release_id == release.id, RunRow.recipe_digest == order.recipe_digest, RunRow.namespace == place_of(order))
    if (row := session.scalars(query.with_for_update(of=RunRow)).first()) is not None:
        return row, False
    row = RunRow(release=release, recipe=order.recipe, recipe_digest=order.recipe_digest, namespace=place_of(order), trigger=order.trigger, private=False)
    row.folder, row.target, row.quick = order.folder, order.target, order.quick or None
    row.state, row.attempt, row.created, row.queued = "queued", 1, now(), now()
    row.fixes_as_pr, row.waits, row.priority = False, 0, 0
    session.add(row)
    session.flush()
    return row, True


def run_record(row: RunRow) -> RunRecord:
    """A run's row as it is handed out."""
    return RunRecord(
        id=row.id,
        release=Release(repo=row.release.repo, sha=row.release.sha),
        recipe=row.recipe,
        recipe_digest=row.recipe_digest,
        namespace=row.namespace.partition(IN_FOLDER)[0],
        private=row.private,
        state=state_of(row),
        trigger=row.trigger,
        attempt=row.attempt,
        error=row.error,
        lease=row.lease,
        worker=row.worker,
        created=row.created,
        started=row.started,
        finished=row.finished,
        disk_high_water=row.disk_high_water,
        fixes_as_pr=row.fixes_as_pr,
        folder=row.folder,
        target=row.target,
        quick=bool(row.quick),
        due=due_at(row.due) if row.state == "queued" and row.due is not None else None,
        waits=row.waits,
        priority=row.priority,
        queued=row.queued,
        wanted=cast("Wanted | None", row.wanted),
        redo=tuple(row.redo or ()),
        rollback=None if row.rollback is None else Rollback(**{**row.rollback, "place": place_in(row.rollback)}),
    )
