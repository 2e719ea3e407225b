"""Endpoints for runs: which there are, asking for one, and all that is known of one; and whether the service can work."""

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import SQLAlchemyError

from config.settings import REPO_ID, Settings, Watched
from config.wire import API
from service.api.access import Caller, Moment, Number, Operator, TheRun, TheSettings, TheStore, Words, caller
from service.api.behind import prefix
from service.api.errors import ApiError, problems
from service.api.live import Part, Waiting, parts, waiting
from service.api.once import Once, idempotency_key
from service.api.outward import asking_the_hub
from service.api.tagging import Tagged
from service.disk.space import space
from service.hubclient import connect
from service.release.attention import Attention, attention
from service.release.checks.watch import RECIPE_NAME, Broken, broken, unreleasable
from service.release.intake import ReleaseRequest, queue_release
from service.release.route import Route
from service.release.watchlist import entries, following
from service.runs.going import Going, going
from service.runs.heads import RunHead, run_head
from service.runs.recipe import RunRecipe, recipe_of
from service.runs.report import find
from service.runs.summary import RunSummary, summarize
from service.store import RunFilter, RunRecord, RunState, Store
from service.store.database import is_away

public = APIRouter(tags=["service"])
protected = APIRouter(tags=["runs"], route_class=Tagged, dependencies=[Depends(caller)], responses=problems(401, 422, 429))
acting = APIRouter(tags=["runs"], route_class=Once, dependencies=[Depends(idempotency_key)], responses=problems(400, 401, 403, 404, 408, 409, 413, 422, 429))

REVISION = r"^[A-Za-z0-9][A-Za-z0-9._/-]*$"
_FOLDERS = re.compile(r"(?<![^\s'\"(])[~.]{0,2}(?:/[^/\s]+)*/(?=[^/\s])")
"""What stands before the last part of a path in a sentence."""


_HTML: dict[int | str, dict[str, Any]] = {200: {"content": {"text/html": {"schema": {"type": "string"}}}, "description": "The page"}}


class BrokenWatch(BaseModel):
    """An entry of the watch list that cannot be released as it is now, told by the listener of `health_port` alone; elsewhere that there is one."""

    repo: str
    """Empty where it is not told."""
    recipe: str
    """Likewise."""
    error: str


class Disk(BaseModel):
    """The disk that outputs lie on."""

    free: int
    """Bytes."""
    paused: bool
    """No run is begun, because fewer bytes are free than the setting `keep.pause`."""


class Health(BaseModel):
    """Whether the service can work."""

    status: Literal["ok", "failing"]
    database: bool
    watch: list[BrokenWatch]
    """What is wrong with recipes of the watch list; empty when nothing is."""
    parts: list[Part]
    """What the parts of the service are at, and which are stuck."""
    queue: Waiting | None
    """Runs that wait for a worker; null when the database does not answer."""
    disk: Disk
    version: str


_UNNAMED = BrokenWatch(
    repo="", recipe="", error="It cannot be released. `sluice status`, and GET /api/v1/attention with a token for all namespaces, say which and why."
)


class RunPage(BaseModel):
    """Some runs, the newest first."""

    runs: list[RunHead]
    next: int | None
    """Give it as `before` to get the page after this one; null on the last page."""


class RunRequest(BaseModel):
    """What to release."""

    model_config = ConfigDict(extra="forbid")

    repo: str = Field(pattern=REPO_ID, description="`owner/name` on the Hub, never a URL.")
    revision: str | None = Field(
        default=None, pattern=REVISION, max_length=200, description="Branch, tag or commit; default: as on the watch list, else `main`."
    )
    recipe: Words | None = Field(default=None, description="Name of a recipe; default: as on the watch list, else `default`.")
    redo: list[Words] = Field(default=[], max_length=100, description="Stages to do anew, by name or family; the run is carried out again for that.")


@public.get("/health", summary="Whether the service can work", responses={503: {"model": Health, "description": "It cannot; the body tells why"}})
def health(request: Request, response: Response, store: TheStore, settings: TheSettings) -> Health:
    """Answers without a token, with 503 when the database does not answer, a watched recipe cannot be used any more, a part of the service is stuck or
    fails, no worker takes what waits, or the disk is too full to begin a run.
    """
    named = request.app.state.named
    alive, there = parts(named=named), space(settings)
    database, watched, queue = _asked(store, settings, paused=there.paused)
    # without a token nobody learns what is watched, and nobody in which folders the data lie
    watch = [BrokenWatch(repo=item.repo, recipe=item.recipe, error=_FOLDERS.sub("", item.error)) if named else _UNNAMED for item in watched]
    sound = database and not watch and not there.paused and not any(part.stuck or part.failing for part in alive) and not (queue and queue.stuck)
    if not sound:
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return Health(
        status="ok" if sound else "failing",
        database=database,
        watch=watch,
        parts=alive,
        queue=queue,
        disk=Disk(free=there.free, paused=there.paused),
        version=request.app.version,
    )


def _asked(store: Store, settings: Settings, *, paused: bool) -> tuple[bool, Sequence[Broken], Waiting | None]:
    """Whether the database answers; what of the watch list is broken, as far as is known without it; and the queue."""
    try:
        if store.healthy():
            return True, unreleasable(store, settings), waiting(store, paused=paused)
    except SQLAlchemyError as error:  # it went away meanwhile
        if not is_away(error):
            raise
    return False, broken(settings.watch), None


class Wanted(BaseModel):
    """Which runs to list; all that is given must hold."""

    model_config = ConfigDict(extra="forbid")

    repo: Words | None = Field(default=None, description="`owner/name` of the upstream; `*` stands for anything: `Qwen/*`.")
    state: RunState | None = None
    recipe: Words | None = Field(default=None, description="As the run was asked for with.")
    since: Moment | None = Field(default=None, description="Created then or later.")
    until: Moment | None = Field(default=None, description="Created before.")
    limit: int = Field(default=50, ge=1, le=200)
    before: Number | None = Field(default=None, description="Only runs with a smaller number: the `next` of the page before.")


@protected.get("/runs", summary="The runs, newest first")
def list_runs(store: TheStore, token: Caller, wanted: Annotated[Wanted, Query()]) -> RunPage:
    """One page of the runs that the token may see."""
    fields = wanted.model_dump(exclude={"limit"})
    found = store.runs(limit=wanted.limit + 1, wanted=RunFilter(**fields, namespaces=token.namespaces))
    page = found[: wanted.limit]
    return RunPage(runs=[run_head(run) for run in page], next=page[-1].id if len(found) > wanted.limit else None)


@protected.get("/queue", summary="The runs that wait, in the order in which they will be taken")
def list_queue(store: TheStore, token: Caller) -> list[RunHead]:
    """The highest priority first, then who waits longest."""
    return [run_head(run) for run in store.waiting() if token.sees(run.namespace)]


@protected.get("/attention", summary="What a person should look at beside the runs")
def get_attention(store: TheStore, settings: TheSettings, token: Caller) -> Attention:
    """What is still to do, what could not be queued, listed or released, what is stuck, and whether the disk is too full to begin a run."""
    return attention(store, settings, token)


@acting.post("/runs", status_code=HTTPStatus.ACCEPTED, summary="Release a repo", responses=problems(502, 503))
def start_run(wanted: RunRequest, response: Response, store: TheStore, settings: TheSettings, token: Operator) -> RunSummary:
    """Asks the Hub for the commit at once and queues its run, or answers with the run that the same release already has (a failed one is tried again).

    404: the Hub does not know the repo or revision. 409: the release cannot be used as it is, or is to be redone before its end. 422: no such recipe or stage.
    502: the Hub is down or refuses our token. 503: too many such requests wait for the Hub already.
    """
    watched = next(iter(following(entries(store, settings), wanted.repo)), Watched(repo=wanted.repo))
    recipe = wanted.recipe or watched.recipe
    _refuse_paths(recipe, settings)
    api = connect(settings)
    request = ReleaseRequest(repo=wanted.repo, revision=wanted.revision or watched.revision, recipe=recipe, trigger="api", redo=tuple(wanted.redo))
    with asking_the_hub():
        if token.namespaces is not None and not token.sees(namespace := Route(api=api).namespace(settings.namespace)):
            raise ApiError(HTTPStatus.FORBIDDEN, "forbidden", f"The token {token.name} may not publish under {namespace}, as this service does.")
        run, queued = queue_release(store, settings, api, request)
    if queued:
        store.audit("api", f"run/{run.id}", "requested", {"token": token.name, **({"redo": wanted.redo} if wanted.redo else {})})
    return accepted(response, run, summarize(store, run.id))


@protected.get("/runs/{id}", summary="A run with everything that came of it so far", responses=problems(404))
def get_run(run: TheRun, store: TheStore) -> RunSummary:
    """The same JSON that `sluice status RUN --json` prints."""
    return summarize(store, run.id)


@protected.get("/runs/{id}/progress", summary="How a run goes at the moment", responses=problems(404))
def get_progress(run: TheRun, store: TheStore) -> Going:
    """The steps of the present attempt, and how long those that come were foretold to take."""
    return going(store, run.id)


@protected.get("/runs/{id}/report", summary="The run's report, an HTML page", response_class=FileResponse, responses=_HTML | problems(404))
def get_report(run: TheRun, store: TheStore, settings: TheSettings) -> FileResponse:
    """The page with every gate, the figures behind it, and plots. 404 while the run has none."""
    return FileResponse(find(store, settings, run.id), media_type="text/html; charset=utf-8")


@protected.get("/runs/{id}/recipe", summary="The recipe that a run was queued with", responses=problems(404))
def get_recipe(run: TheRun, store: TheStore) -> RunRecipe:
    """All that it said then and what its data held, whatever has become of its file. 404: an older version queued the run, which kept none."""
    return recipe_of(store, run.id)


def accepted(response: Response, run: RunRecord, summary: RunSummary) -> RunSummary:
    """The answer that tells where the run is found that was asked for."""
    response.headers["Location"] = f"{prefix()}{API}/runs/{run.id}"
    return summary


def _refuse_paths(recipe: str, settings: Settings) -> None:
    if recipe not in {item.recipe for item in settings.watch} and not re.fullmatch(RECIPE_NAME, recipe):
        raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", "`recipe` must be the name of a recipe, not a path.")
