"""A run as JSON: what `sluice status RUN --json` prints and the API answers. Numbers that were not measured are null."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel

from config.words import Measurement
from qa import mmlu
from service.pace import pace
from service.runs import own_account
from service.runs.again import Again, again, of_follow_up
from service.runs.ahead import ahead
from service.runs.holds import HoldSummary, PatchSummary, hold_summary, patch_summary
from service.store import PublicationRecord, RunState, StageRecord, StageState, Store, VariantRecord


class ReleaseSummary(BaseModel):
    """The upstream repo at one commit."""

    repo: str
    sha: str


class Divergence(BaseModel):
    """KL divergence to the 16-bit model, in nats per token."""

    mean: float | None
    stderr: float | None
    p999: float | None
    max: float | None


class Subject(BaseModel):
    """Questions of one subject, and how many of them were answered rightly."""

    questions: int
    right: int
    reference: int
    """By the 16-bit model."""
    wins: int
    """Wrong there and right here."""
    losses: int
    """Right there and wrong here."""


class Mmlu(BaseModel):
    """Share of questions answered rightly."""

    accuracy: float | None
    stderr: float | None
    n: int | None
    subjects: dict[str, Subject]


class WaiverSummary(BaseModel):
    """A gate that a person set aside, on which the verdict rests."""

    gate: str
    by: str
    comment: str


class PlanSummary(BaseModel):
    """What was foretold of a planned mix and what came of it; divergences in nats per token."""

    predicted: float | None
    predicted_stderr: float | None
    measured: float | None
    """Of the mix as it was planned."""
    factor: float | None
    """The measured over the expected divergence; what the text does to the stock mix's as well is expected."""
    stock: float | None
    """Of the stock mix of the same size, or of plain NF4."""
    replaced: bool
    """That was better, and is published under the variant's name."""
    remarks: list[str]
    """What a person should look at: patterns of the rules that match no tensor, a prediction that was far off, a mix that was replaced."""


class VariantSummary(BaseModel):
    """One variant: its size, what was measured, how its gates came out."""

    tag: str
    file: str | None
    bytes: int | None
    bpw: float | None
    kld: Divergence
    same_top: float | None
    mmlu: Mmlu
    flips: int | None
    efficiency: float | None
    verdict: Literal["passed", "failed", "error"] | None
    reasons: list[str]
    waivers: list[WaiverSummary]
    plan: PlanSummary | None
    """Null for what is not planned."""


class UnpublishedSummary(BaseModel):
    """Who made a published repo private, and why. It stays so until a person makes it public on the Hub."""

    by: str
    reason: str
    at: datetime


class PublicationSummary(BaseModel):
    """One repo that was published, or left in a folder."""

    id: int
    run: int
    repo: str
    """Or the folder's path."""
    revision: str
    """Or the beginning of the manifest's sha256."""
    url: str
    """Or the folder's, which begins with `file:`."""
    files: list[str]
    at: datetime
    """When it was published, or last found to be so."""
    unpublished: UnpublishedSummary | None
    """Of its repo, whichever publication was taken back; null where nobody did, or the repo was public again when something was published there."""


class PullRequestSummary(BaseModel):
    """The pull request by which the fixes were offered to the upstream."""

    repo: str
    number: int
    url: str
    state: Literal["opened", "open", "merged", "closed"]
    """`opened` by this run; otherwise as the run found it when it was to open one."""
    files: list[str]
    """That it changes."""


class ProgressSummary(BaseModel):
    """How far a stage has come in what it counts at the moment."""

    done: int
    total: int | None
    unit: str
    rate: float | None
    """Units a second since it began to count them; null unless the stage is at work and something was done."""
    left: float | None
    """Seconds until it has counted all; null where nobody can know."""


class StageSummary(BaseModel):
    """One step of the run."""

    name: str
    state: StageState
    seconds: float | None
    """That it took, or has taken so far; of an interrupted one, until something was last heard of it."""
    estimate: float | None
    """Seconds that it was expected to take."""
    progress: ProgressSummary | None
    """Null of a stage that has reported nothing."""


class RollbackSummary(BaseModel):
    """That a run may take the place of a newer release."""

    sha: str
    """The newest commit of the upstream that gives way."""
    by: str | None
    """Null: the watched revision itself moved back."""
    comment: str


class RunSummary(BaseModel):
    """A run with everything that came of it so far."""

    run: int
    release: ReleaseSummary
    recipe: str
    quick: bool
    """Measured on small samples, as `--quick` asks for: no full measurements."""
    target: str | None
    """The folder that repos are left in; null when they go to the Hub."""
    state: RunState
    wanted: Literal["cancel", "pause"] | None
    """What a person asked of a run that is being carried out, and that it has not come to yet."""
    trigger: str
    """What asked for it the last time: `poll`, `webhook`, `api`, `command`, `retry`, …"""
    attempt: int
    priority: int
    """The highest is carried out first; 0 unless a person set it."""
    namespace: str
    """Under which it publishes."""
    private: bool
    created: datetime
    queued: datetime | None
    """The last time."""
    started: datetime | None
    finished: datetime | None
    error: str | None
    again: Again | None
    """Whether a run that failed, or that waits for the Hub, is tried again by itself, and when."""
    rollback: RollbackSummary | None
    """What it may take the place of although that is newer; null for most."""
    disk_high_water: int | None
    left: float | None
    """Seconds to the end of a run that is being carried out; null where nobody can know."""
    coming: list[str]
    """Its stages that have not begun, when they are known."""
    stages: list[StageSummary]
    held: list[HoldSummary]
    """What a person has to decide, or decided, before it may go on; empty for most."""
    patches: list[PatchSummary]
    variants: list[VariantSummary]
    publications: list[PublicationSummary]
    pull_request: PullRequestSummary | None
    """Null where the fixes were not offered."""
    remarks: list[str]
    """What was not published because the upstream is one's own, what became of the pull request, and what is still to do for a run that is done."""


def summary(store: Store, run_id: int) -> dict[str, Any]:
    """The summary of a run as JSON values. Raises UnknownRun."""
    return summarize(store, run_id).model_dump(mode="json")


def summarize(store: Store, run_id: int) -> RunSummary:
    """The summary of a run. Raises UnknownRun."""
    run, now, steps = store.run(run_id), datetime.now(UTC), store.stages(run_id)
    variants, patches, request = store.variants(run_id), store.patches(run_id), store.pull_request(run_id)
    going = ahead(store.forecast(run_id), [step for step in steps if run.started and step.started >= run.started]) if run.state == "running" else None
    return RunSummary(
        run=run.id,
        release=ReleaseSummary(repo=run.release.repo, sha=run.release.sha),
        recipe=run.recipe,
        quick=run.quick,
        target=run.target,
        state=run.state,
        wanted=run.wanted,
        trigger=run.trigger,
        attempt=run.attempt,
        priority=run.priority,
        namespace=run.namespace,
        private=run.private,
        created=run.created,
        queued=run.queued,
        started=run.started,
        finished=run.finished,
        error=run.error,
        again=again(run),
        rollback=None if run.rollback is None else RollbackSummary(sha=run.rollback.sha, by=run.rollback.by, comment=run.rollback.comment),
        disk_high_water=run.disk_high_water,
        left=None if going is None else going.left(steps, now),
        coming=[] if going is None else list(going.coming),
        stages=[stage_summary(stage, now) for stage in steps],
        held=[hold_summary(item) for item in store.holds(run_id)],
        patches=[patch_summary(patch) for patch in patches],
        variants=[_variant(variant) for variant in variants],
        publications=[publication_summary(item) for item in store.publications(run_id)],
        pull_request=None if request is None else PullRequestSummary(**vars(request)),
        remarks=[
            *own_account.remarks(run, store.recipe(run.recipe_digest), variants, request, patched=bool(patches)),
            *map(of_follow_up, store.follow_ups(run_id)),
        ],
    )


def stage_summary(stage: StageRecord, now: datetime) -> StageSummary:
    """A stage as JSON values."""
    until = now if stage.state == "running" else stage.reported
    seconds = stage.seconds if stage.seconds is not None or until is None else max(0.0, (until - stage.started).total_seconds())
    going = pace(stage.phase if stage.state == "running" else None, now)
    progress = stage.progress and ProgressSummary(
        done=stage.progress.done, total=stage.progress.total, unit=stage.progress.unit, rate=going.rate, left=going.left
    )
    return StageSummary(name=stage.name, state=stage.state, seconds=seconds, estimate=stage.estimate, progress=progress)


def publication_summary(record: PublicationRecord) -> PublicationSummary:
    """A publication as JSON values."""
    taken_back = None if record.unpublished is None else UnpublishedSummary(**vars(record.unpublished))
    return PublicationSummary(
        id=record.id,
        run=record.run,
        repo=record.repo,
        revision=record.revision,
        url=record.url,
        files=list(record.files),
        at=record.at,
        unpublished=taken_back,
    )


def _variant(record: VariantRecord) -> VariantSummary:
    measured = {item.name: item for item in record.measurements}
    asked = measured.get("mmlu.accuracy")
    subjects = {name: Subject(**found) for sample in record.samples for name, found in mmlu.by_subject(sample.answers).items()}
    flips = _value(measured, "flips")
    return VariantSummary(
        tag=record.variant.tag,
        file=record.file,
        bytes=record.bytes,
        bpw=record.bpw,
        kld=Divergence(
            mean=_value(measured, "kld.mean"),
            stderr=finite(measured["kld.mean"].stderr) if "kld.mean" in measured else None,
            p999=_value(measured, "kld.p999"),
            max=_value(measured, "kld.max"),
        ),
        same_top=_value(measured, "same_top"),
        mmlu=Mmlu(accuracy=_value(measured, "mmlu.accuracy"), stderr=finite(asked.stderr) if asked else None, n=asked.n if asked else None, subjects=subjects),
        flips=None if flips is None else round(flips),
        efficiency=_value(measured, "efficiency"),
        verdict=None if record.verdict is None else record.verdict.outcome.value,
        reasons=[] if record.verdict is None else list(record.verdict.reasons),
        waivers=[WaiverSummary(gate=item.gate, by=item.by, comment=item.comment) for item in (record.verdict.waivers if record.verdict else ())],
        plan=_plan(measured),
    )


def _plan(measured: Mapping[str, Measurement]) -> PlanSummary | None:
    if "plan.predicted" not in measured:
        return None
    return PlanSummary(
        predicted=_value(measured, "plan.predicted"),
        predicted_stderr=finite(measured["plan.predicted"].stderr),
        measured=_value(measured, "plan.measured"),
        factor=_value(measured, "plan.error"),
        stock=_value(measured, "plan.stock"),
        replaced=bool(_value(measured, "plan.replaced")),
        remarks=remarks(measured),
    )


def remarks(measured: Mapping[str, Measurement]) -> list[str]:
    """What a person should look at in a plan, from measurements by name."""
    return [detail for name in ("plan.predicted", "plan.error", "plan.replaced") if name in measured for detail in measured[name].details]


def _value(measured: Mapping[str, Measurement], name: str) -> float | None:
    return finite(measured[name].value) if name in measured else None


def finite(value: float | None) -> float | None:
    """JSON has no infinity; a divergence that overflowed counts as not measured."""
    return value if value is not None and math.isfinite(value) else None
