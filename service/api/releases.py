"""The endpoint for upstream repos: how each is watched, what was seen of it, its last run, and what is published for it."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from service.api.access import Caller, TheSettings, TheStore, Words, caller
from service.api.errors import problems
from service.api.tagging import Tagged
from service.release.known import UpstreamFilter, UpstreamHead, upstreams
from service.store import RunState

protected = APIRouter(tags=["releases"], route_class=Tagged, dependencies=[Depends(caller)], responses=problems(401, 422, 429))


class ReleasePage(BaseModel):
    """Some upstream repos, by name."""

    releases: list[UpstreamHead]
    next: str | None = Field(examples=["Qwen/Qwen3-0.6B"])
    """Give it as `after` to get the page after this one; null on the last page."""


class Wanted(BaseModel):
    """Which upstream repos to list; all that is given must hold."""

    model_config = ConfigDict(extra="forbid")

    repo: Words | None = Field(default=None, description="`owner/name`; `*` stands for anything.", examples=["Qwen/*"])
    state: RunState | None = Field(default=None, description="Of its last run.")
    watched: bool | None = Field(default=None, description="Whether an entry of the watch list follows a repo of this name.")
    limit: int = Field(default=50, ge=1, le=200)
    after: Words | None = Field(default=None, description="Only repos whose name comes after that: the `next` of the page before.")


@protected.get("/releases", summary="The upstream repos that are watched or known, by name")
def list_releases(store: TheStore, settings: TheSettings, token: Caller, wanted: Annotated[Wanted, Query()]) -> ReleasePage:
    """One page of them, each with the branches and recipes that it is watched with, the commit that was last seen, its last run, and what is published for it.

    A token for some namespaces is shown the repos that runs there are of.
    """
    asked = UpstreamFilter(**wanted.model_dump(exclude={"limit"}))
    found = upstreams(store, settings, asked, limit=wanted.limit + 1, token=token)
    page = found[: wanted.limit]
    return ReleasePage(releases=page, next=page[-1].repo if len(found) > wanted.limit else None)
