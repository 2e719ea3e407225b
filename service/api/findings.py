"""Endpoints for what came of a run: stages and their files, measurements, gates, waivers, attempts."""

from datetime import datetime
from typing import Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from config.words import Kind
from service.api.access import TheRun, TheStore, caller
from service.api.errors import problems
from service.api.tagging import Tagged
from service.runs.attempts import Attempt, attempts_of
from service.runs.gates import RunGates, gates_of
from service.runs.summary import StageSummary, finite, stage_summary
from service.store import StageRecord
from service.store.database import now

protected = APIRouter(tags=["findings"], route_class=Tagged, dependencies=[Depends(caller)], responses=problems(401, 404, 422, 429))


class ArtifactView(BaseModel):
    """A file that a stage made."""

    stage: str
    name: str
    sha256: str
    bytes: int


class StageView(StageSummary):
    """One step of a run, with its time and its files."""

    key: str
    """Digest of what decides its outputs: the same key is the same work, done once."""
    started: datetime
    error: str | None
    artifacts: list[ArtifactView]


class MeasurementView(BaseModel):
    """A number about a variant."""

    variant: str
    kind: str
    name: str
    value: float | None
    """Null where it overflowed."""
    unit: str
    stderr: float | None
    """One standard error; null where none is known."""
    n: int | None
    """Tokens, questions or checks that it rests on."""
    details: list[str]


class WaiverView(BaseModel):
    """A gate that a person set aside for one variant of this run."""

    gate: str
    variant: str
    outcome: Literal["failed", "error"]
    """How the gate had come out."""
    by: str
    comment: str
    at: datetime


@protected.get("/runs/{id}/stages", summary="The steps of a run")
def stages(run: TheRun, store: TheStore) -> list[StageView]:
    """In the order in which they were last begun."""
    return [_stage(stage) for stage in store.stages(run.id)]


@protected.get("/runs/{id}/artifacts", summary="The files that a run's stages made")
def artifacts(run: TheRun, store: TheStore) -> list[ArtifactView]:
    """With size and sha256, under which each can be fetched as long as it is kept."""
    return [artifact for stage in store.stages(run.id) for artifact in _stage(stage).artifacts]


@protected.get("/runs/{id}/measurements", summary="What was measured of a run's variants")
def measurements(run: TheRun, store: TheStore) -> list[MeasurementView]:
    """Variant by variant, in the order of the recipe."""
    return [
        MeasurementView(
            variant=record.variant.tag,
            kind=record.variant.kind.value if isinstance(record.variant.kind, Kind) else record.variant.kind,
            name=item.name,
            value=finite(item.value),
            unit=item.unit,
            stderr=finite(item.stderr),
            n=item.n,
            details=list(item.details),
        )
        for record in store.variants(run.id)
        for item in record.measurements
    ]


@protected.get("/runs/{id}/gates", summary="The verdicts of a run, gate by gate")
def gates(run: TheRun, store: TheStore) -> RunGates:
    """What `sluice gates RUN --json` prints: condition, value with its error, limit, outcome, reason and waiver."""
    return gates_of(store, run.id)


@protected.get("/runs/{id}/waivers", summary="The waivers of a run")
def waivers(run: TheRun, store: TheStore) -> list[WaiverView]:
    """In the order in which they were given; withdrawn ones are in the audit trail only."""
    return [
        WaiverView(
            gate=item.waiver.gate,
            variant=item.waiver.tag,
            outcome="failed" if item.waiver.outcome.value == "failed" else "error",
            by=item.waiver.by,
            comment=item.waiver.comment,
            at=item.at,
        )
        for item in store.waivers(run.id)
    ]


@protected.get("/runs/{id}/attempts", summary="How often a run was carried out, and how each attempt ended")
def attempts(run: TheRun, store: TheStore) -> list[Attempt]:
    """The first attempt first."""
    return attempts_of(store, run.id)


def _stage(stage: StageRecord) -> StageView:
    made = [ArtifactView(stage=stage.name, name=item.name, sha256=item.sha256, bytes=item.bytes) for item in stage.artifacts]
    return StageView(**stage_summary(stage, now()).model_dump(), key=stage.key, started=stage.started, error=stage.error, artifacts=made)
