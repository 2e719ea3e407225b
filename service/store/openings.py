"""Which repos we made to be public and have not opened yet: by the audit trail's events about each since it was last settled."""

from itertools import takewhile

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.store.database import Database
from service.store.ledger import note
from service.store.tables import AuditRow, PublicationRow

BEGUN, ENDED, GIVEN_UP = "created", "opened", "left private"  # private until it holds its publication; public; not for us to open any more
MET, REFUSED = "found instead", "not created"  # what became of the last creation
REMEMBERED = (BEGUN, ENDED, GIVEN_UP, MET, REFUSED)


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

    def found_instead(self, repo: str) -> None:
        """The repo was not made as was said the last time: one of several services may have made it, and that one's word stands."""
        self._note(repo, MET)

    def not_made(self, repo: str) -> None:
        """The repo was not made at all."""
        self._note(repo, REFUSED)

    def _note(self, repo: str, action: str) -> None:
        with self.write() as session:
            note(session, "publish", _subject(repo), action, {})


def begun(session: Session, repo: str) -> bool:
    """Whether the repo was made to be public, and nothing came of it yet."""
    query = select(AuditRow.action).where(AuditRow.subject == _subject(repo), AuditRow.action.in_(REMEMBERED)).order_by(AuditRow.id.desc())
    since = list(takewhile(lambda action: action in (BEGUN, MET), session.scalars(query)))
    return since.count(BEGUN) > since.count(MET)


def give_up_opening(session: Session, repo: str) -> None:
    """Leave the repo to its owner, in the transaction of what is the reason for it; nothing where it is so already."""
    if begun(session, repo):
        note(session, "publish", _subject(repo), GIVEN_UP, {})


def _subject(repo: str) -> str:
    return f"repo/{repo}"
