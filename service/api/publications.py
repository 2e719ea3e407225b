"""Endpoints for what was published: which repos there are, publishing one again, taking one back."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from service.api.access import Caller, Name, Number, Publisher, Reason, ThePublication, TheRun, TheSettings, TheStore, Words, actor, caller
from service.api.errors import problems
from service.api.once import Once, idempotency_key
from service.api.outward import asking_the_hub
from service.api.runs import accepted
from service.api.tagging import UNCHANGED_PUBLICATION, StoreOfPublication, StoreOfRun, Tagged
from service.hubclient import connect
from service.release import rollback
from service.release.republishing import republish as publish_again
from service.release.unpublishing import unpublish as take_back
from service.runs.deciding import Decision
from service.runs.summary import PublicationSummary, RunSummary, publication_summary, summarize
from service.store import TokenRecord

protected = APIRouter(tags=["publications"], route_class=Tagged, dependencies=[Depends(caller)], responses=problems(401, 422, 429))
acting = APIRouter(
    tags=["publications"], route_class=Once, dependencies=[Depends(idempotency_key)], responses=problems(400, 401, 403, 404, 408, 409, 413, 422, 429)
)


class PublicationPage(BaseModel):
    """Some publications, the newest first."""

    publications: list[PublicationSummary]
    next: int | None
    """Give it as `before` to get the page after this one; null on the last page."""


class Wanted(BaseModel):
    """Which publications to list."""

    model_config = ConfigDict(extra="forbid")

    repo: Words | None = Field(default=None, description="Only those in this repo.")
    limit: int = Field(default=50, ge=1, le=200)
    before: Number | None = Field(default=None, description="Only those with a smaller number: the `next` of the page before.")


class RollbackRequest(BaseModel):
    """Who lets an older release take the place of a newer one, and why."""

    model_config = ConfigDict(extra="forbid")

    by: Name = Field(description="The person who decides it; it stands in the manifest.", examples=["Ada"])
    comment: Reason = Field(description="Why; it stands in the manifest.", examples=["The new weights were uploaded by mistake."])

    def decision(self, token: TokenRecord, **details: int) -> Decision:
        """As it is recorded."""
        return Decision(by=self.by, comment=self.comment, source="api", details={"token": token.name, **details})


class UnpublishRequest(BaseModel):
    """Who takes a publication back, and why."""

    model_config = ConfigDict(extra="forbid")

    by: Name = Field(description="The person who decides it.", examples=["Ada"])
    reason: Reason = Field(description="Why.", examples=["The licence changed."])


@protected.get("/publications", summary="The publications, newest first")
def list_publications(store: TheStore, token: Caller, wanted: Annotated[Wanted, Query()]) -> PublicationPage:
    """One page of those that the token may see."""
    found = store.all_publications(limit=wanted.limit + 1, repo=wanted.repo, before=wanted.before, namespaces=token.namespaces)
    page = found[: wanted.limit]
    return PublicationPage(publications=[publication_summary(item) for item in page], next=page[-1].id if len(found) > wanted.limit else None)


@protected.get("/publications/{id}", summary="A repo that was published", responses=problems(404))
def get_publication(publication: ThePublication) -> PublicationSummary:
    """The publication of that number."""
    return publication_summary(publication)


@acting.post(
    "/publications/{id}/republish",
    status_code=HTTPStatus.ACCEPTED,
    summary="Publish again",
    responses=problems(412, 502, 503),
)
def republish(publication: ThePublication, response: Response, store: StoreOfPublication, settings: TheSettings, token: Publisher) -> RunSummary:
    """Queues the publication's run again. What was built and measured is reused; a repo that already holds the same files gets no commit.

    Where a newer release is published by then, that one stays, and the run ends as superseded; `rollback` is what takes its place.
    """
    with asking_the_hub():
        run = publish_again(store, settings, publication.id, actor(token))
    return accepted(response, run, summarize(store, run.id))


@acting.post(
    "/publications/{id}/rollback",
    status_code=HTTPStatus.ACCEPTED,
    summary="Roll back to this publication",
    responses=problems(412, 502, 503),
)
def roll_back(
    publication: ThePublication, said: RollbackRequest, response: Response, store: StoreOfPublication, settings: TheSettings, token: Publisher
) -> RunSummary:
    """Queues the publication's run again and lets it take the place of the newer release that is published now, and of nothing newer still.

    Who decided it and why stands in the manifest and in the audit trail. 409: nothing newer is published, or the run is not over. 502: the Hub is down.
    """
    with asking_the_hub():
        run = rollback.roll_back(store, connect(settings), publication.run, said.decision(token, publication=publication.id))
    return accepted(response, run, summarize(store, run.id))


@acting.post(
    "/runs/{id}/rollback",
    status_code=HTTPStatus.ACCEPTED,
    summary="Roll back to what a run published, or would have",
    responses=problems(412, 502, 503),
)
def roll_back_to_run(run: TheRun, said: RollbackRequest, response: Response, store: StoreOfRun, settings: TheSettings, token: Publisher) -> RunSummary:
    """The same for all repos of a run."""
    with asking_the_hub():
        queued = rollback.roll_back(store, connect(settings), run.id, said.decision(token))
    return accepted(response, queued, summarize(store, run.id))


@acting.post("/publications/{id}/unpublish", summary="Take a publication back", dependencies=[UNCHANGED_PUBLICATION], responses=problems(412, 502, 503))
def unpublish(publication: ThePublication, said: UnpublishRequest, store: TheStore, settings: TheSettings, token: Publisher) -> PublicationSummary:
    """Makes the repo private on the Hub, with name and reason on record. It keeps its files, and stays private until a person makes it public there.

    409: the publication is a folder. 502: the Hub is down or refuses our token.
    """
    with asking_the_hub():
        return publication_summary(take_back(store, connect(settings), publication.id, by=said.by, reason=said.reason, actor=actor(token)))
