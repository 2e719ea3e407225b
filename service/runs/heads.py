"""A run as lists show it."""

from datetime import datetime

from pydantic import BaseModel

from service.runs.again import Again, again
from service.runs.summary import ReleaseSummary
from service.store import RunRecord, RunState


class RunHead(BaseModel):
    """A run in the list of runs."""

    run: int
    release: ReleaseSummary
    recipe: str
    state: RunState
    trigger: str
    attempt: int
    priority: int
    error: str | None
    again: Again | None
    """Whether a run that failed, or that waits for the Hub, is tried again by itself, and when."""
    created: datetime
    started: datetime | None
    finished: datetime | None


def run_head(run: RunRecord) -> RunHead:
    """The run as lists show it."""
    return RunHead(
        run=run.id,
        release=ReleaseSummary(repo=run.release.repo, sha=run.release.sha),
        recipe=run.recipe,
        state=run.state,
        trigger=run.trigger,
        attempt=run.attempt,
        priority=run.priority,
        error=run.error,
        again=again(run),
        created=run.created,
        started=run.started,
        finished=run.finished,
    )
