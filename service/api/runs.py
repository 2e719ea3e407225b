"""Endpoints for runs and publications."""

import re
from dataclasses import replace
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field

from config.settings import REPO_ID, Settings, Watched
from service.api.access import Caller, Number, TheSettings, TheStore, caller
from service.api.errors import ApiError
from service.hubclient import connect
from service.release import rollback
from service.release.checks.watch import broken
from service.release.intake import ReleaseRequest, queue_release
from service.release.watchlist import entries, following
from service.runs import holds
from service.runs.report import find
from service.runs.summary import PublicationSummary, ReleaseSummary, RunSummary, publication_summary, summarize
from service.store import RunRecord, RunState, order_of

public = APIRouter(tags=["service"])
protected = APIRouter(tags=["runs"], dependencies=[Depends(caller)])

RECIPE_NAME = r"^[a-z0-9][a-z0-9_-]*$"
"""A recipe in `config/recipes/`. Paths are for the operator: over the network they would tell what files there are."""
REVISION = r"^[A-Za-z0-9][A-Za-z0-9._/-]*$"
_FOLDERS = re.compile(r"(?<![^\s'\"(])[~.]{0,2}(?:/[^/\s]+)*/(?=[^/\s])")
"""What stands before the last part of a path in a sentence."""


class BrokenWatch(BaseModel):
    """An entry of the watch list that cannot be released as it is now."""

    repo: str
    recipe: str
    error: str


class Health(BaseModel):
    """Whether the service can work."""

    status: Literal["ok", "failing"]
    database: bool
    watch: list[BrokenWatch]
    """What is wrong with recipes of the watch list; empty when nothing is."""
    version: str


class RunHead(BaseModel):
    """A run in the list of runs."""

    run: int
    release: ReleaseSummary
    recipe: str
    state: RunState
    trigger: str
    attempt: int
    error: str | None
    created: datetime
    started: datetime | None
    finished: datetime | None


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
    recipe: str | None = Field(default=None, max_length=200, description="Name of a recipe; default: as on the watch list, else `default`.")


class ApprovalRequest(BaseModel):
    """Who lets a held release go on, and why."""

    model_config = ConfigDict(extra="forbid")

    by: str = Field(min_length=1, max_length=200, description="The person who decides it; it stands on the card.")
    comment: str = Field(min_length=1, max_length=2000, description="Why; it stands on the card.")
    subject: str | None = Field(default=None, max_length=200, description="Only this of what the run is held for; default: all.")


class RollbackRequest(BaseModel):
    """Who lets an older release take the place of a newer one, and why."""

    model_config = ConfigDict(extra="forbid")

    by: str = Field(min_length=1, max_length=200, description="The person who decides it; it stands in the manifest.")
    comment: str = Field(min_length=1, max_length=2000, description="Why; it stands in the manifest.")


@public.get("/health", summary="Whether the service can work")
def health(request: Request, response: Response, store: TheStore, settings: TheSettings) -> Health:
    """Answers without a token, with 503 when the database does not answer or a watched recipe cannot be used any more."""
    database = store.healthy()
    # without a token nobody learns in which folders the data lie
    watched = broken(entries(store, settings) if database else settings.watch)
    watch = [BrokenWatch(repo=item.repo, recipe=item.recipe, error=_FOLDERS.sub("", item.error)) for item in watched]
    sound = database and not watch
    if not sound:
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return Health(status="ok" if sound else "failing", database=database, watch=watch, version=request.app.version)


@protected.get("/runs", summary="The runs, newest first")
def list_runs(store: TheStore, limit: Annotated[int, Query(ge=1, le=200)] = 50, before: Number | None = None, state: RunState | None = None) -> RunPage:
    """One page of runs."""
    found = store.runs(limit=limit + 1, state=state, before=before)
    page = found[:limit]
    return RunPage(runs=[_head(run) for run in page], next=page[-1].id if len(found) > limit else None)


@protected.post("/runs", status_code=HTTPStatus.ACCEPTED, summary="Release a repo")
def start_run(wanted: RunRequest, response: Response, store: TheStore, settings: TheSettings, token: Caller) -> RunSummary:
    """Asks the Hub for the commit at once and queues its run, or answers with the run that the same release already has (a failed one is tried again).

    404: the Hub does not know the repo or revision. 409: the release cannot be used as it is. 422: no such recipe. 502: the Hub is down or refuses our token.
    """
    watched = next(iter(following(entries(store, settings), wanted.repo)), Watched(repo=wanted.repo))
    recipe = wanted.recipe or watched.recipe
    _refuse_paths(recipe, settings)
    run, queued = queue_release(
        store, settings, connect(settings), ReleaseRequest(repo=wanted.repo, revision=wanted.revision or watched.revision, recipe=recipe, trigger="api")
    )
    if queued:
        store.audit("api", f"run/{run.id}", "requested", {"token": token.name})
    return _accepted(response, run, summarize(store, run.id))


@protected.get("/runs/{id}", summary="A run with everything that came of it so far")
def get_run(id: Number, store: TheStore) -> RunSummary:
    """The same JSON that `sluice status RUN --json` prints."""
    return summarize(store, id)


@protected.get("/runs/{id}/report", summary="The run's report, an HTML page", response_class=FileResponse)
def get_report(id: Number, store: TheStore, settings: TheSettings) -> FileResponse:
    """The page with every gate, the figures behind it, and plots. 404 while the run has none."""
    return FileResponse(find(store, settings, id), media_type="text/html; charset=utf-8")


@protected.post("/runs/{id}/approve", status_code=HTTPStatus.ACCEPTED, summary="Let a held release go on")
def approve(id: Number, said: ApprovalRequest, response: Response, store: TheStore, token: Caller) -> RunSummary:
    """Records who decided it and why, and queues the run again once nothing is undecided. 409: the run is not held, or not for that."""
    decision = holds.Decision(by=said.by, comment=said.comment, subject=said.subject, source="api", details={"token": token.name})
    return _accepted(response, holds.approve(store, id, decision), summarize(store, id))


@protected.get("/publications/{id}", tags=["publications"], summary="A repo that was published")
def get_publication(id: Number, store: TheStore) -> PublicationSummary:
    """The publication of that number."""
    return publication_summary(store.publication(id))


@protected.post("/publications/{id}/republish", status_code=HTTPStatus.ACCEPTED, tags=["publications"], summary="Publish again")
def republish(id: Number, response: Response, store: TheStore, token: Caller) -> RunSummary:
    """Queues the publication's run again. What was built and measured is reused; a repo that already holds the same files gets no commit.

    Where a newer release is published by then, that one stays, and the run ends as superseded; `rollback` is what takes its place.
    """
    publication = store.publication(id)
    run = store.run(publication.run)
    order = replace(order_of(run, trigger="republish"), rollback=None)  # that is an action of its own
    run, _ = store.enqueue(order, again=True)
    store.audit("api", f"publication/{id}", "republish", {"token": token.name, "run": run.id})
    return _accepted(response, run, summarize(store, run.id))


@protected.post("/publications/{id}/rollback", status_code=HTTPStatus.ACCEPTED, tags=["publications"], summary="Roll back to this publication")
def roll_back(id: Number, said: RollbackRequest, response: Response, store: TheStore, settings: TheSettings, token: Caller) -> RunSummary:
    """Queues the publication's run again and lets it take the place of the newer release that is published now, and of nothing newer still.

    Who decided it and why stands in the manifest and in the audit trail. 409: nothing newer is published, or the run is not over. 502: the Hub is down.
    """
    decision = rollback.Decision(by=said.by, comment=said.comment, source="api", details={"token": token.name, "publication": id})
    run = rollback.roll_back(store, connect(settings), store.publication(id).run, decision)
    return _accepted(response, run, summarize(store, run.id))


def _accepted(response: Response, run: RunRecord, summary: RunSummary) -> RunSummary:
    response.headers["Location"] = f"/api/v1/runs/{run.id}"
    return summary


def _refuse_paths(recipe: str, settings: Settings) -> None:
    if recipe not in {item.recipe for item in settings.watch} and not re.fullmatch(RECIPE_NAME, recipe):
        raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", "`recipe` must be the name of a recipe, not a path.")


def _head(run: RunRecord) -> RunHead:
    return RunHead(
        run=run.id,
        release=ReleaseSummary(repo=run.release.repo, sha=run.release.sha),
        recipe=run.recipe,
        state=run.state,
        trigger=run.trigger,
        attempt=run.attempt,
        error=run.error,
        created=run.created,
        started=run.started,
        finished=run.finished,
    )
