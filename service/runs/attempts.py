"""How often a run was carried out, and how each attempt ended, as the audit trail has it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from service.store import AuditFilter, AuditRecord, Store
from service.store.queue import CRASHES

_ENDINGS = ("done", "blocked", "held", "superseded", "failed", "cancelled", "paused")
_EVENTS = 1000  # of a run that are read, the latest
TAKEN_OVER = "takeover"


class Attempt(BaseModel):
    """One time that a run was queued, or taken over from a process that had ended without a word."""

    attempt: int
    trigger: str
    """What asked for it; `takeover` where nobody did, because the process of the attempt before ended without a word."""
    queued: datetime
    ended: datetime | None
    """Null while it waits or works, and where nobody wrote down how it ended."""
    outcome: str | None
    """`done`, `blocked`, `held`, `superseded`, `failed`, `cancelled`, or `interrupted`: its process ended without a word."""
    error: str | None


def attempts_of(store: Store, run: int) -> list[Attempt]:
    """The attempts, the first one first. Raises UnknownRun."""
    record = store.run(run)
    found: list[Attempt] = []
    for event in reversed(store.audit_events(wanted=AuditFilter(subject=f"run/{run}"), limit=_EVENTS)):
        if event.action == "queued":
            found.append(_begun(event, int(event.details.get("attempt", len(found) + 1)), event.source))
        elif event.action in _ENDINGS and found:
            found[-1].ended, found[-1].outcome, found[-1].error = event.at, event.action, event.details.get("error")
        elif event.action == "resumed" and found:
            found[-1].ended = found[-1].outcome = None
        elif event.action == "abandoned" and found:
            found[-1].ended, found[-1].outcome, found[-1].error = event.at, "interrupted", _in_words(event.details)
            if event.details.get("in a row", 0) < CRASHES:
                found.append(_begun(event, found[-1].attempt + 1, TAKEN_OVER))
    if found and found[-1].outcome is None and record.state == "interrupted":
        found[-1].outcome, found[-1].error = "interrupted", _in_words({})  # and nobody has come to take it over yet
    return found


def _begun(event: AuditRecord, number: int, trigger: str) -> Attempt:
    return Attempt(attempt=number, trigger=trigger, queued=event.at, ended=None, outcome=None, error=None)


def _in_words(details: Mapping[str, Any]) -> str:
    where = f", at {', '.join(at)}" if (at := details.get("at")) else ""
    return f"The process that carried it out ended without a word{where}."
