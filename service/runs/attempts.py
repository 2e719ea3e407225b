"""How often a run was carried out, and how each attempt ended, as the audit trail has it."""

from datetime import datetime

from pydantic import BaseModel

from service.store import AuditFilter, Store

_ENDINGS = ("done", "blocked", "held", "superseded", "failed", "cancelled", "paused")
_EVENTS = 1000  # of a run that are read, the latest


class Attempt(BaseModel):
    """One time that a run was queued."""

    attempt: int
    trigger: str
    """What asked for it."""
    queued: datetime
    ended: datetime | None
    """Null while it waits or works, and where nobody wrote down how it ended."""
    outcome: str | None
    """`done`, `blocked`, `held`, `superseded`, `failed`, `cancelled`."""
    error: str | None


def attempts_of(store: Store, run: int) -> list[Attempt]:
    """The attempts, the first one first. Raises UnknownRun."""
    store.run(run)
    found: list[Attempt] = []
    for event in reversed(store.audit_events(wanted=AuditFilter(subject=f"run/{run}"), limit=_EVENTS)):
        if event.action == "queued":
            number = int(event.details.get("attempt", len(found) + 1))
            found.append(Attempt(attempt=number, trigger=event.source, queued=event.at, ended=None, outcome=None, error=None))
        elif event.action in _ENDINGS and found:
            found[-1].ended, found[-1].outcome, found[-1].error = event.at, event.action, event.details.get("error")
        elif event.action == "resumed" and found:
            found[-1].ended = found[-1].outcome = None
    return found
