"""Answers to requests that carry an idempotency key: the same request again gets the same answer, and nothing is done twice."""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Select, delete, select, update
from sqlalchemy.exc import IntegrityError

from service.store.database import Database, now
from service.store.outside import AnswerRow

KEPT_HOURS = 24.0  # that a key is remembered
WORK_SECONDS = 300.0  # after which a request without an answer is taken for broken off: whether it was carried out, nobody knows


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What is remembered of a request."""

    request: str  # sha256 of method, path and body
    status: int | None  # None while it is at work
    location: str | None
    body: str
    broken: bool = False  # off: it has no answer, and will have none


class Answers(Database):
    """The answers, each under its caller and key."""

    def claim_answer(self, caller: str, key: str, request: str) -> Answer | None:
        """Take the key for a request that is about to be carried out; what is remembered under it when it is taken."""
        with self.write() as session:
            session.execute(delete(AnswerRow).where(AnswerRow.begun <= now() - timedelta(hours=KEPT_HOURS)))
            try:
                with session.begin_nested():
                    session.add(AnswerRow(caller=caller, key=key, request=request, begun=now()))
                return None
            except IntegrityError:
                row = session.scalars(_of(caller, key)).first()
                if row is None:  # it failed just now, and gave the key back
                    return Answer(request=request, status=None, location=None, body="")
                broken = row.status is None and row.begun <= now() - timedelta(seconds=WORK_SECONDS)
                return Answer(request=row.request, status=row.status, location=row.location, body=row.body or "", broken=broken)

    def keep_answer(self, caller: str, key: str, answer: Answer) -> None:
        """Remember the answer under the claimed key."""
        values = {"status": answer.status, "location": answer.location, "body": answer.body}
        with self.write() as session:
            session.execute(update(AnswerRow).where(AnswerRow.caller == caller, AnswerRow.key == key).values(values))

    def drop_answer(self, caller: str, key: str) -> None:
        """Give the key back: nothing was done."""
        with self.write() as session:
            session.execute(delete(AnswerRow).where(AnswerRow.caller == caller, AnswerRow.key == key, AnswerRow.status.is_(None)))


def _of(caller: str, key: str) -> Select[AnswerRow]:
    return select(AnswerRow).where(AnswerRow.caller == caller, AnswerRow.key == key)
