"""Which repos we made to be public and have not opened yet: the latest of two events of the audit trail about each."""

from sqlalchemy import select

from service.store.database import Database
from service.store.ledger import note
from service.store.tables import AuditRow

BEGUN, ENDED = "created", "opened"  # private until it holds its publication; public


class Openings(Database):
    """See `publishers.opening`."""

    def begin_opening(self, repo: str) -> None:
        """The repo is about to be made, private for now."""
        self._note(repo, BEGUN)

    def opening(self, repo: str) -> bool:
        """Whether the repo was made to be public and was not opened since."""
        query = select(AuditRow.action).where(AuditRow.subject == f"repo/{repo}", AuditRow.action.in_((BEGUN, ENDED))).order_by(AuditRow.id.desc()).limit(1)
        with self.read() as session:
            return session.scalars(query).first() == BEGUN

    def end_opening(self, repo: str) -> None:
        """The repo is public by now."""
        self._note(repo, ENDED)

    def _note(self, repo: str, action: str) -> None:
        with self.write() as session:
            note(session, "publish", f"repo/{repo}", action, {})
