"""What a person may ask of a run by command, API or dashboard, each with who asked in the audit trail."""

from dataclasses import dataclass, field, replace
from typing import Any

from service.store import RunRecord, SteeringRefused, Store, order_of

_INSTEAD = {
    "queued": "it waits for its turn",
    "running": "it is being carried out",
    "interrupted": "a running service goes on with it by itself",
    "paused": "resume it instead",
    "held": "a person has to approve it first",
}


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who asks, and by which way."""

    source: str = "command"  # "command", "api", "dashboard"
    details: dict[str, Any] = field(default_factory=dict)  # for the audit trail: {"token": "ci"}


def cancel(store: Store, run: int, actor: Actor) -> RunRecord:
    """End the run; a stage at work is stopped. Raises UnknownRun, SteeringRefused."""
    return store.cancel(run, source=actor.source, details=actor.details)


def pause(store: Store, run: int, actor: Actor) -> RunRecord:
    """Put the run aside; a stage at work is done first. Raises UnknownRun, SteeringRefused."""
    return store.pause(run, source=actor.source, details=actor.details)


def resume(store: Store, run: int, actor: Actor) -> RunRecord:
    """Let a paused run go on. Raises UnknownRun, SteeringRefused."""
    return store.resume(run, source=actor.source, details=actor.details)


def prioritize(store: Store, run: int, priority: int, actor: Actor) -> RunRecord:
    """Carry the run out before those with a lower priority. Raises UnknownRun, SteeringRefused."""
    return store.prioritize(run, priority, source=actor.source, details=actor.details)


def retry(store: Store, run: int, actor: Actor) -> RunRecord:
    """Queue a run again that has ended; what it made is found again. Raises UnknownRun, SteeringRefused."""
    record = store.run(run)
    refuse_unended(record)
    order = order_of(record, trigger="retry")
    if record.state == "done":  # what it was allowed to take the place of, it has: doing that again is another decision
        order = replace(order, rollback=None)
    again, _ = store.enqueue(order, again=True)
    store.audit(actor.source, f"run/{run}", "retried", {"attempt": again.attempt, **actor.details})
    return again


def refuse_unended(run: RunRecord) -> None:
    """Raise SteeringRefused for a run that cannot be tried again, because it has not ended."""
    if (instead := _INSTEAD.get(run.state)) is not None:
        raise SteeringRefused(f"Run {run.id} is {run.state}: {instead}. Only a run that has ended can be tried again.")
