"""Pull requests by which the fixes of runs were offered to their upstreams."""

from typing import Literal, cast

from sqlalchemy import select

from service.store.database import Database, now
from service.store.ledger import note
from service.store.records import PullRequestRecord
from service.store.tables import PullRequestRow


class PullRequests(Database):
    """At most one of each run."""

    def record_pull_request(self, run: int, found: PullRequestRecord, *, source: str) -> None:
        """Keep where the run's fixes were offered, and how that stands; recorded again, it replaces what was known."""
        with self.write() as session:
            row = session.scalars(select(PullRequestRow).where(PullRequestRow.run_id == run)).first()
            if row is None:
                session.add(row := PullRequestRow(run_id=run))
            row.repo, row.number, row.url, row.state = found.repo, found.number, found.url, found.state
            row.files, row.at = list(found.files), now()
            if found.state == "opened":
                note(session, source, f"run/{run}", "pull request", {"repo": found.repo, "url": found.url, "files": list(found.files)})

    def pull_request(self, run: int) -> PullRequestRecord | None:
        """Where the run's fixes were offered; None where they were not."""
        with self.read() as session:
            row = session.scalars(select(PullRequestRow).where(PullRequestRow.run_id == run)).first()
            return None if row is None else _record(row)


def _record(row: PullRequestRow) -> PullRequestRecord:
    state = cast("Literal['opened', 'open', 'merged', 'closed']", row.state)
    return PullRequestRecord(repo=row.repo, number=row.number, url=row.url, state=state, files=tuple(row.files))
