"""Runs that wait for a worker, and whether there is one that takes them."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import and_, case, func, not_, or_, select

from service.store.database import Database, is_due, now
from service.store.queue import left_behind
from service.store.tables import RunRow, StageRow

UNTAKEN = timedelta(minutes=10)  # after which a run that nobody takes, though nobody is at another one, is told as stuck: workers look every second


@dataclass(frozen=True, kw_only=True)
class Backlog:
    """Runs that could be carried out now, and are not."""

    runs: int
    since: datetime | None  # since when the oldest of them is queued; None when there is none
    untaken: datetime | None  # since when one of them could be carried out and no worker did anything; None while one does

    @property
    def stuck(self) -> bool:
        """Whether that is for too long. It says nothing of whether work is paused on purpose."""
        return self.untaken is not None and now() - self.untaken > UNTAKEN

    @property
    def told(self) -> str:
        """In a sentence, of runs that nobody takes."""
        runs = f"{self.runs} run{'s' if self.runs != 1 else ''}"
        return (
            f"No worker has taken any of {runs} in the queue since {self.untaken:%Y-%m-%d %H:%M} UTC, and none is at another one. "
            "Look whether the service runs (`sluice serve`), and into its log."
        )


class Backlogs(Database):
    """The queue as somebody sees it who waits."""

    def backlog(self) -> Backlog:
        """The runs that could be carried out now and are not."""
        free = RunRow.state == "queued", or_(RunRow.due.is_(None), is_due(RunRow.due))
        could = case((and_(RunRow.due > RunRow.queued, RunRow.due <= now()), RunRow.due), else_=RunRow.queued)
        with self.read() as session:
            runs, since, ready = session.execute(select(func.count(), func.min(RunRow.queued), func.min(could)).where(*free)).one()
            busy = ready is not None and session.scalar(select(func.count()).where(RunRow.state == "running", not_(left_behind(session))))
            if ready is None or busy:
                return Backlog(runs=runs, since=since, untaken=None)
            ended = session.execute(select(func.max(RunRow.started), func.max(RunRow.finished))).one()
            worked = session.execute(select(func.max(StageRow.started), func.max(StageRow.reported))).one()
            return Backlog(runs=runs, since=since, untaken=max((at for at in (ready, *ended, *worked) if at is not None and at <= now()), default=None))
