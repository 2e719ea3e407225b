"""What a run is held for, and letting it go on: what `sluice approve` and the API's endpoint do."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from config.near import hint
from config.words import Patch
from service.runs import deciding
from service.store import ApprovalRefused, HoldRecord, RunRecord, Store
from service.store.approvals import changed


class PatchSummary(BaseModel):
    """One change that a fix made, or would make."""

    fix: str
    file: str
    key: str
    before: Any
    after: Any
    reason: str


class ApprovalSummary(BaseModel):
    """Who let the release go on, and why."""

    by: str
    comment: str
    at: datetime


class HoldSummary(BaseModel):
    """Something that a person has to decide before the release goes on."""

    subject: str
    """The id of the rule that proposes the patches, `family` or `licence`."""
    digest: str
    """What tells this proposal from every other: who approves it says by it what was seen."""
    reason: str
    """What was found, and what approving it means."""
    patches: list[PatchSummary]
    """That are then made."""
    approval: ApprovalSummary | None
    """Null while it is undecided."""


@dataclass(frozen=True, kw_only=True)
class Decision(deciding.Decision):
    """A person's decision about what a run is held for."""

    subject: str | None = None  # None: everything that is undecided
    digest: str | None = None  # of what was shown; None: whatever it is held for now


def patch_summary(patch: Patch) -> PatchSummary:
    """A patch as JSON values."""
    return PatchSummary(fix=patch.fix, file=patch.file, key=patch.key, before=patch.before, after=patch.after, reason=patch.reason)


def hold_summary(record: HoldRecord) -> HoldSummary:
    """A hold as JSON values."""
    approval = None if record.approval is None else ApprovalSummary(**vars(record.approval))
    return HoldSummary(
        subject=record.hold.subject,
        digest=record.hold.digest,
        reason=record.hold.reason,
        patches=[patch_summary(patch) for patch in record.hold.patches],
        approval=approval,
    )


def approve(store: Store, run: int, decision: Decision) -> RunRecord:
    """Let what the run is held for be done as it was proposed; once nothing is undecided, the run is queued again. Raises UnknownRun, ApprovalRefused."""
    by, comment = decision.said("An approval", ApprovalRefused)
    record = store.run(run)
    if record.state != "held":
        raise ApprovalRefused(f"Run {run} is not held, it is {record.state}. There is nothing to approve.")
    undecided = {item.hold.subject: item.hold for item in store.holds(run) if item.approval is None}
    if decision.subject is not None and decision.subject not in undecided:
        near = hint(decision.subject, undecided)
        raise ApprovalRefused(f"Run {run} is not held for {decision.subject!r}.{near} It is held for: {', '.join(undecided) or 'nothing any more'}.")
    wanted = [hold for hold in undecided.values() if decision.subject in {None, hold.subject}]
    for hold in wanted:
        if decision.digest not in {None, hold.digest}:
            raise changed(run, hold.subject)
    return store.approve(run, wanted, by=by, comment=comment, source=decision.source, details=decision.details)


def withdraw(store: Store, run: int, decision: Decision) -> RunRecord:
    """Take approvals back; that counts when the run is carried out again. Raises UnknownRun, ApprovalRefused."""
    by, comment = decision.said("An approval", ApprovalRefused)
    record = store.run(run)
    approved = [item.hold.subject for item in store.holds(run) if item.approval is not None]
    for subject in [decision.subject] if decision.subject is not None else approved:
        store.withdraw_approval(run, subject, by=by, comment=comment, source=decision.source, details=decision.details)
    if not approved:
        raise ApprovalRefused(f"Nothing was approved in run {run}. `sluice status {run}` shows what it is held for.")
    return record
