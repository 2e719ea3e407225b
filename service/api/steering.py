"""Endpoints by which people steer runs: cancel, pause, resume, priority, retry; approvals and waivers."""

from http import HTTPStatus

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, ConfigDict, Field

from service.api.access import Name, Operator, Publisher, Reason, TheRun, TheSettings, actor
from service.api.errors import problems
from service.api.once import Once, idempotency_key
from service.api.runs import accepted
from service.api.tagging import StoreOfRun
from service.release.redoing import redo
from service.runs import gates, holds, steering
from service.runs.summary import RunSummary, summarize
from service.store import PRIORITIES, TokenRecord

acting = APIRouter(
    tags=["steering"],
    route_class=Once,
    dependencies=[Depends(idempotency_key)],
    responses=problems(400, 401, 403, 404, 408, 409, 412, 413, 422, 429),
)


class PriorityRequest(BaseModel):
    """Where a run is to stand in the queue."""

    model_config = ConfigDict(extra="forbid")

    priority: int = Field(ge=PRIORITIES[0], le=PRIORITIES[-1], description="The highest is carried out first; 0 unless somebody sets it.", examples=[10])


class ApprovalRequest(BaseModel):
    """Who lets a held release go on, and why."""

    model_config = ConfigDict(extra="forbid")

    by: Name = Field(description="The person who decides it; it stands on the card.", examples=["Ada"])
    comment: Reason = Field(description="Why; it stands on the card.", examples=["I compared the template with the maker's own."])
    subject: Name | None = Field(default=None, description="Only this of what the run is held for; default: all.")
    digest: Name | None = Field(
        default=None, description="Of what was shown, as the run's summary tells it: refused where it is held for something else by now."
    )

    def decision(self, token: TokenRecord) -> holds.Decision:
        """As it is recorded."""
        return holds.Decision(**self.model_dump(), source="api", details={"token": token.name})


class RedoRequest(BaseModel):
    """Which stages are done anew."""

    model_config = ConfigDict(extra="forbid")

    stages: list[Name] = Field(min_length=1, max_length=100, description="Names as the run's stages have them, or of a family of them.", examples=[["convert"]])


class WaiverRequest(BaseModel):
    """Which gate is set aside for which variant, by whom and why."""

    model_config = ConfigDict(extra="forbid")

    gate: Name = Field(description="Its name, as the run's gates tell it.", examples=["divergence"])
    variant: Name = Field(description="The variant's tag.", examples=["IQ1_S"])
    by: Name = Field(description="The person who decides it; it stands on the card.", examples=["Ada"])
    comment: Reason = Field(description="Why; it stands on the card.", examples=["Asked for by its users."])
    unmeasured: bool = Field(default=False, description="Needed for a gate that could not be measured at all.")

    def decision(self, token: TokenRecord) -> gates.Decision:
        """As it is recorded."""
        return gates.Decision(gate=self.gate, tag=self.variant, by=self.by, comment=self.comment, source="api", details={"token": token.name})


@acting.post("/runs/{id}/cancel", status_code=HTTPStatus.ACCEPTED, summary="End a run")
def cancel(run: TheRun, response: Response, store: StoreOfRun, token: Operator) -> RunSummary:
    """A waiting run is cancelled at once; one that is carried out within seconds, with the stage or transfer at work. What was published by then is told."""
    return accepted(response, steering.cancel(store, run.id, actor(token)), summarize(store, run.id))


@acting.post("/runs/{id}/pause", status_code=HTTPStatus.ACCEPTED, summary="Put a run aside")
def pause(run: TheRun, response: Response, store: StoreOfRun, token: Operator) -> RunSummary:
    """A waiting run is paused at once; one that is carried out when the stage at work is done, so that nothing has to be done again."""
    return accepted(response, steering.pause(store, run.id, actor(token)), summarize(store, run.id))


@acting.post("/runs/{id}/resume", status_code=HTTPStatus.ACCEPTED, summary="Let a paused run go on")
def resume(run: TheRun, response: Response, store: StoreOfRun, token: Operator) -> RunSummary:
    """It gets back its place in the queue."""
    return accepted(response, steering.resume(store, run.id, actor(token)), summarize(store, run.id))


@acting.post("/runs/{id}/priority", status_code=HTTPStatus.ACCEPTED, summary="Put a run before others, or behind them")
def prioritize(run: TheRun, wanted: PriorityRequest, response: Response, store: StoreOfRun, token: Operator) -> RunSummary:
    """A run that is carried out already is not interrupted for another."""
    return accepted(response, steering.prioritize(store, run.id, wanted.priority, actor(token)), summarize(store, run.id))


@acting.post("/runs/{id}/retry", status_code=HTTPStatus.ACCEPTED, summary="Carry a run out again that has ended")
def retry(run: TheRun, response: Response, store: StoreOfRun, token: Operator) -> RunSummary:
    """What it made is found again and not made anew; waivers that were given since are heeded."""
    return accepted(response, steering.retry(store, run.id, actor(token)), summarize(store, run.id))


@acting.post("/runs/{id}/redo", status_code=HTTPStatus.ACCEPTED, summary="Carry a run out again and do some stages anew")
def redo_stages(run: TheRun, wanted: RedoRequest, response: Response, store: StoreOfRun, settings: TheSettings, token: Operator) -> RunSummary:
    """Stages after them are done anew where what they take has changed. 409: the run has not ended. 422: it has no such stage."""
    return accepted(response, redo(store, settings, run.id, wanted.stages, actor(token)), summarize(store, run.id))


@acting.post("/runs/{id}/approve", status_code=HTTPStatus.ACCEPTED, summary="Let a held release go on")
def approve(run: TheRun, said: ApprovalRequest, response: Response, store: StoreOfRun, token: Publisher) -> RunSummary:
    """Records who decided it and why, and queues the run again once nothing is undecided. 409: the run is not held, or not for that."""
    return accepted(response, holds.approve(store, run.id, said.decision(token)), summarize(store, run.id))


@acting.post("/runs/{id}/approve/withdraw", status_code=HTTPStatus.ACCEPTED, summary="Take approvals back")
def withdraw_approval(run: TheRun, said: ApprovalRequest, response: Response, store: StoreOfRun, token: Publisher) -> RunSummary:
    """That counts when the run is carried out again. 409: nothing of the kind was approved."""
    return accepted(response, holds.withdraw(store, run.id, said.decision(token)), summarize(store, run.id))


@acting.post("/runs/{id}/waivers", status_code=HTTPStatus.CREATED, summary="Set a gate aside for one variant")
def waive(run: TheRun, said: WaiverRequest, store: StoreOfRun, token: Publisher) -> gates.RunGates:
    """It counts when the run is carried out again (`retry`). 409: the gate passed, is waived already, or was not applied."""
    gates.waive(store, run.id, said.decision(token), unmeasured=said.unmeasured)
    return gates.gates_of(store, run.id)


@acting.post("/runs/{id}/waivers/withdraw", status_code=HTTPStatus.ACCEPTED, summary="Take a waiver back")
def withdraw(run: TheRun, said: WaiverRequest, store: StoreOfRun, token: Publisher) -> gates.RunGates:
    """It counts when the run is carried out again. 409: there is no such waiver."""
    gates.withdraw(store, run.id, said.decision(token))
    return gates.gates_of(store, run.id)
