"""Whether the parts of the service are alive, and what each is at since when: what a supervisor asks before it starts the service again."""

from datetime import datetime
from http import HTTPStatus
from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from service.pulse import pulse
from service.store import Store

POLL = "poll"

router = APIRouter(tags=["service"])


class Part(BaseModel):
    """A part of the service: poll, intake, worker, …"""

    name: str
    doing: str
    """What it was at when it was last heard of, e.g. a run's stage; empty when it waited for something to do. Of a poll the owner or the repo, told by the
    listener of `health_port` alone; elsewhere `a repo`.
    """
    since: datetime
    """When that was; UTC."""
    limit: float
    """Seconds that it may be silent."""
    stuck: bool
    failing: bool
    """Whether its work failed for a reason that nobody foresaw, the last time: the log tells which. It is tried again."""


class Waiting(BaseModel):
    """Runs that could be carried out now, and are not."""

    runs: int
    since: datetime | None
    """Since when the oldest of them waits; null when there is none."""
    stuck: bool
    """No worker has taken any of them for ten minutes, though none was at another run and work is not paused."""


class Liveness(BaseModel):
    """Whether every part of the service shows signs of life."""

    status: Literal["ok", "stuck"]
    parts: list[Part]


def parts(*, named: bool) -> list[Part]:
    """Every part of this program, and whether it is stuck; `named`: who asks may know which repos are watched."""
    return [
        Part(
            name=sign.part,
            doing=sign.doing if named or sign.part != POLL or not sign.doing else "a repo",
            since=sign.since,
            limit=sign.limit,
            stuck=sign.stuck,
            failing=sign.failing,
        )
        for sign in pulse.signs()
    ]


def waiting(store: Store, *, paused: bool) -> Waiting:
    """The queue, without runs that wait for the Hub; `paused`: none is begun on purpose."""
    found = store.backlog()
    return Waiting(runs=found.runs, since=found.since, stuck=found.stuck and not paused)


@router.get("/live", summary="Whether no part of the service is stuck")
async def live(request: Request, response: Response) -> Liveness:
    """Answers without a token and without the database, with 503 when a part is stuck, which a restart cures; `/health` says whether the service can work."""
    found = parts(named=request.app.state.named)
    if stuck := any(part.stuck for part in found):
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return Liveness(status="stuck" if stuck else "ok", parts=found)
