"""How a run goes at the moment, for whoever shows it live: the steps of the present attempt, and what was foretold of those that come."""

from collections.abc import Mapping
from datetime import datetime

from pydantic import BaseModel

from service.pace import Phase
from service.runs.ahead import ahead
from service.store import RunState, StageRecord, StageState, Store


class Step(BaseModel):
    """One step of the present attempt."""

    id: int
    name: str
    state: StageState
    started: datetime
    seconds: float | None
    """That it took; null while it is at work."""
    estimate: float | None
    """Seconds that it was expected to take."""
    phase: Phase | None
    """What was reported in its present unit; null where nothing was."""
    error: str | None


class Coming(BaseModel):
    """The stage of the release that the steps at work are of, and those after it."""

    stage: str
    began: datetime
    estimate: float
    """Seconds."""
    then: Mapping[str, float]
    """Seconds by name, in the order of the run."""


class Going(BaseModel):
    """A run at this moment."""

    run: int
    state: RunState
    started: datetime | None
    steps: list[Step]
    coming: Coming | None
    """Null where nothing was foretold, or nothing has begun."""


def going(store: Store, run: int) -> Going:
    """How the run goes. Raises UnknownRun."""
    record = store.run(run)
    steps = [step for step in store.stages(run) if record.started and step.started >= record.started]
    found = ahead(store.forecast(run), steps) if record.state == "running" else None
    coming = None if found is None else Coming(stage=found.stage, began=found.began, estimate=found.estimate, then=found.coming)
    return Going(run=run, state=record.state, started=record.started, steps=[_step(step) for step in steps], coming=coming)


def _step(step: StageRecord) -> Step:
    told = {name: getattr(step, name) for name in Step.model_fields}
    return Step(**told)
