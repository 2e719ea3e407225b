"""The forms of the dashboard: each does one thing to a run or a publication, for a visitor whose token may, and goes back to the run's page."""

import re
from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from service.api.access import Number, TheSettings, TheStore, visible_publication, visible_run
from service.api.errors import ApiError
from service.api.outward import asking_the_hub
from service.dashboard.signing import Form, TheVisitor, Visitor, doing
from service.hubclient import connect
from service.release import rollback
from service.release.republishing import republish
from service.release.unpublishing import unpublish as take_back
from service.runs import gates, holds, steering
from service.runs.deciding import Decision
from service.runs.steering import Actor
from service.store import RunRecord, Store

router = APIRouter()

PLAIN: dict[str, Callable[[Store, int, Actor], RunRecord]] = {
    "cancel": steering.cancel,
    "pause": steering.pause,
    "resume": steering.resume,
    "retry": steering.retry,
}


def seen(store: Store, visitor: Visitor, run: int) -> RunRecord:
    """The run, as far as the visitor may see it. Raises UnknownRun."""
    return visible_run(run, store, visitor.token)


@router.post("/runs/{id}/priority")
def prioritize(id: Number, request: Request, form: Form, visitor: TheVisitor, store: TheStore) -> Response:
    """Put a run before others."""
    doing(visitor, form, "operate")
    seen(store, visitor, id)
    given = form.get("priority", "")
    if not re.fullmatch(r"-?[0-9]{1,9}", given):
        raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", f"A priority is a whole number, not {given!r}.")
    steering.prioritize(store, id, int(given), actor(visitor))
    return back(request, id, "prioritized")


@router.post("/runs/{id}/approve")
def approve(id: Number, request: Request, form: Form, visitor: TheVisitor, store: TheStore) -> Response:
    """Let a held release go on."""
    doing(visitor, form, "publish")
    seen(store, visitor, id)
    said = holds.Decision(by=form.get("by", ""), comment=form.get("comment", ""), subject=form.get("subject") or None, digest=form.get("digest", ""))
    holds.approve(store, id, replace(said, source="dashboard", details=actor(visitor).details))
    return back(request, id, "approved")


@router.post("/runs/{id}/waive")
def waive(id: Number, request: Request, form: Form, visitor: TheVisitor, store: TheStore) -> Response:
    """Set a gate aside for one variant."""
    doing(visitor, form, "publish")
    seen(store, visitor, id)
    gates.waive(store, id, _waiver(form, visitor), unmeasured=form.get("unmeasured") == "yes")
    return back(request, id, "waived")


@router.post("/runs/{id}/withdraw")
def withdraw(id: Number, request: Request, form: Form, visitor: TheVisitor, store: TheStore) -> Response:
    """Take a waiver back."""
    doing(visitor, form, "publish")
    seen(store, visitor, id)
    gates.withdraw(store, id, _waiver(form, visitor))
    return back(request, id, "withdrawn")


@router.post("/runs/{id}/{verb}")
def steer(id: Number, verb: str, request: Request, form: Form, visitor: TheVisitor, store: TheStore) -> Response:
    """Cancel, pause, resume or retry a run."""
    deed = PLAIN.get(verb)
    if deed is None:
        raise ApiError(HTTPStatus.NOT_FOUND, "not_found", "There is no such page.")
    doing(visitor, form, "operate")
    seen(store, visitor, id)
    deed(store, id, actor(visitor))
    return back(request, id, verb)


@router.post("/publications/{id}/publish")
def publish(id: Number, request: Request, form: Form, visitor: TheVisitor, store: TheStore, settings: TheSettings) -> Response:
    """Publish again."""
    doing(visitor, form, "publish")
    run = visible_publication(id, store, visitor.token).run
    with asking_the_hub():
        republish(store, settings, id, actor(visitor))
    return back(request, run, "publish")


@router.post("/publications/{id}/rollback")
def roll_back(id: Number, request: Request, form: Form, visitor: TheVisitor, store: TheStore, settings: TheSettings) -> Response:
    """Publish an older release in the place of the newer one."""
    doing(visitor, form, "publish")
    run = visible_publication(id, store, visitor.token).run
    said = Decision(by=form.get("by", ""), comment=form.get("comment", ""), source="dashboard", details={"publication": id, **actor(visitor).details})
    with asking_the_hub():
        rollback.roll_back(store, connect(settings), run, said)
    return back(request, run, "rollback")


@router.post("/publications/{id}/unpublish")
def unpublish(id: Number, request: Request, form: Form, visitor: TheVisitor, store: TheStore, settings: TheSettings) -> Response:
    """Make a published repo private."""
    doing(visitor, form, "publish")
    run = visible_publication(id, store, visitor.token).run
    by, reason = form.get("by", ""), form.get("comment", "")
    if not by or not reason:
        raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", "Say who takes this back, and why: both are kept on record.")
    with asking_the_hub():
        take_back(store, connect(settings), id, by=by, reason=reason, actor=actor(visitor))
    return back(request, run, "unpublish")


def actor(visitor: Visitor) -> Actor:
    """Who does it, for the audit trail."""
    return Actor(source="dashboard", details={"token": visitor.token.name})


def back(request: Request, run: int, said: str) -> Response:
    """To the run's page, which says what was done."""
    return RedirectResponse(f"{request.scope['root_path']}/runs/{run}?said={said}", status_code=HTTPStatus.SEE_OTHER)


def _waiver(form: dict[str, str], visitor: Visitor) -> gates.Decision:
    said = {"by": form.get("by", ""), "comment": form.get("comment", "")}
    return gates.Decision(gate=form.get("gate", ""), tag=form.get("variant", ""), **said, source="dashboard", details=actor(visitor).details)
