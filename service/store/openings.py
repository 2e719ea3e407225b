"""Which repos we made to be public and have not opened yet: the latest of the audit trail's events that tell of it, about each."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.store.database import Database
from service.store.ledger import note
from service.store.tables import AuditRow, PublicationRow

BEGUN, ENDED, GIVEN_UP = "created", "opened", "left private"  # private until it holds its publication; public; not for us to open any more
REMEMBERED = (BEGUN, ENDED, GIVEN_UP)


class Openings(Database):
    """See `publishers.opening`."""

    def begin_opening(self, repo: str) -> None:
        """The repo is about to be made, private for now."""
        self._note(repo, BEGUN)

    def opening(self, repo: str) -> bool:
        """Whether the repo was made to be public, was not opened since, and nobody took back what is published in it."""
        newest = select(PublicationRow.unpublished).where(PublicationRow.repo == repo).order_by(PublicationRow.id.desc()).limit(1)
        with self.read() as session:
            return begun(session, repo) and session.scalars(newest).first() is None

    def end_opening(self, repo: str) -> None:
        """The repo is public by now."""
        self._note(repo, ENDED)

    def _note(self, repo: str, action: str) -> None:
        with self.write() as session:
            note(session, "publish", _subject(repo), action, {})


def begun(session: Session, repo: str) -> bool:
    """Whether the repo was made to be public, and nothing came of it yet."""
    query = select(AuditRow.action).where(AuditRow.subject == _subject(repo), AuditRow.action.in_(REMEMBERED)).order_by(AuditRow.id.desc()).limit(1)
    return session.scalars(query).first() == BEGUN


def give_up_opening(session: Session, repo: str) -> None:
    """Leave the repo to its owner, in the transaction of what is the reason for it; nothing where it is so already."""
    if begun(session, repo):
        note(session, "publish", _subject(repo), GIVEN_UP, {})


def _subject(repo: str) -> str:
    return f"repo/{repo}"
