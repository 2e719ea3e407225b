"""What the places of `notify` are told: read from the audit trail, written down before it is sent, and kept with how that went."""

from collections.abc import Iterable
from datetime import timedelta

from sqlalchemy import func, select, text, true
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.store.database import Database, due_at, is_due, now
from service.store.outside import DeliveryRow, PlaceRow
from service.store.records import AuditRecord, DeliveryRecord, Message
from service.store.tables import AuditRow

ENDS = ("done", "blocked", "held", "superseded", "failed", "cancelled")  # actions of audit events about runs
AT_ONCE = 1000  # events that are looked through for one that is missing
SENDING = 60.0  # seconds that whoever takes a delivery has for it, before another service takes it


NOTING = text(
    "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'relation' AND relation = 'audit_events'::regclass AND mode = 'RowExclusiveLock' AND granted"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"
)


class Deliveries(Database):
    """Messages to places."""

    def ends_untold(self, place: str) -> tuple[AuditRecord, ...]:
        """The ends of runs that a place was not told of yet, oldest first. A place that is new is told what happens from now on."""
        with self.write() as session:
            row = session.scalars(select(PlaceRow).where(PlaceRow.name == place)).first()
            if row is None:
                session.add(PlaceRow(name=place, event=session.scalar(select(func.max(AuditRow.id))) or 0))
                return ()
            query = (
                select(AuditRow)
                .where(AuditRow.id > row.event, AuditRow.id <= _settled(session, row.event))  # what comes before in order is told before, nothing passed over
                .where(AuditRow.action.in_(ENDS), AuditRow.subject.startswith("run/"))
                .order_by(AuditRow.id)
                .limit(100)
            )
            return tuple(
                AuditRecord(id=event.id, at=event.at, source=event.source, subject=event.subject, action=event.action, details=event.details)
                for event in session.scalars(query)
            )

    def put_messages(self, place: str, messages: Iterable[Message], *, upto: int) -> None:
        """Write down what a place is to be told, and that it is told of all events up to that number. What another service wrote down already stays."""
        with self.write() as session:
            for message in messages:
                try:
                    with session.begin_nested():
                        session.add(DeliveryRow(place=place, **vars(message), state="pending", attempts=0, created=now(), due=now()))
                except IntegrityError:
                    continue
            row = session.scalars(select(PlaceRow).where(PlaceRow.name == place).with_for_update()).one()
            row.event = max(row.event, upto)

    def take_delivery(self, places: Iterable[str]) -> DeliveryRecord | None:
        """The delivery to one of these places that is due longest, which nobody else takes for a minute; None when none is due."""
        with self.write() as session:
            query = (
                select(DeliveryRow)
                .where(DeliveryRow.state == "pending", is_due(DeliveryRow.due), DeliveryRow.place.in_(tuple(places)))
                .order_by(DeliveryRow.due, DeliveryRow.id)
                .limit(1)
            )
            row = session.scalars(query.with_for_update(skip_locked=True)).first()
            if row is None:
                return None
            row.attempts, row.due = row.attempts + 1, now() + timedelta(seconds=SENDING)
            return _record(row)

    def delivery_ended(self, id: int, *, error: str | None = None, again_in: float | None = None) -> None:
        """How an attempt went: delivered; or an error, after which it is tried again in so many seconds, or never without."""
        with self.write() as session:
            row = session.get_one(DeliveryRow, id)
            row.error = error
            if error is None:
                row.state = "delivered"
            elif again_in is None:
                row.state = "given_up"
            else:
                row.due = now() + timedelta(seconds=again_in)

    def deliveries(self, *, limit: int = 50, before: int | None = None) -> tuple[DeliveryRecord, ...]:
        """The newest first; with `before` only those with a smaller number."""
        query = select(DeliveryRow).where(true() if before is None else DeliveryRow.id < before).order_by(DeliveryRow.id.desc()).limit(limit)
        with self.read() as session:
            return tuple(_record(row) for row in session.scalars(query))


def _settled(session: Session, after: int) -> int:
    """The number up to which every event beyond `after` is there that ever will be.

    PostgreSQL shows transactions in the order in which they end, and numbers are given before that. Whoever notes an event has the table locked from before
    its number is given until what it notes can be seen, so that nothing up to the largest number seen is still to come once nobody has; else the first
    number that is missing may be. SQLite has one writer, who gives the next number.
    """
    last = session.scalar(select(func.max(AuditRow.id))) or 0
    if session.get_bind().dialect.name != "postgresql" or not session.scalar(NOTING):
        return last
    there = session.scalars(select(AuditRow.id).where(AuditRow.id > after).order_by(AuditRow.id).limit(AT_ONCE)).all()
    return next((expected - 1 for expected, id in enumerate(there, start=after + 1) if id != expected), after + len(there))


def _record(row: DeliveryRow) -> DeliveryRecord:
    return DeliveryRecord(
        id=row.id, place=row.place, event=row.event, subject=row.subject, ending=row.ending, body=row.body,
        state=row.state, attempts=row.attempts, error=row.error, created=row.created, due=due_at(row.due),
    )  # fmt: skip
