"""A run being carried out: does its stages once, records each in the database, tells a listener, and watches the disk."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from sqlalchemy.exc import SQLAlchemyError

from config.progress import Progress
from config.recipe import Recipe
from config.words import Hold, Outcome, Patch, Variant, Verdict, Waiver
from service.execution.kept import FileId, Output, blocks
from service.execution.process import now
from service.execution.workbench import Ending, Event, Workbench
from service.release.withdrawing import Withdrawn
from service.repeating import repeated
from service.store import Artifact, RunRecord, Store, Wanted

DISK_SAMPLE = 0.5  # seconds between two looks at the disk
log = logging.getLogger(__name__)

WRITE_SECONDS = 1.0  # between two reports of progress in the database
PUBLISHING = "publishing"  # what a run is held for when all that is left to do is to publish
COMMIT_SECONDS = 180.0  # that a run stays with the process that is about to publish, whatever keeps that from renewing its lease


@dataclass(kw_only=True)
class Job(Workbench):
    """One run of one recipe on one release, with everything its stages need."""

    store: Store
    run: RunRecord
    recipe: Recipe
    sources: Sequence[Mapping[str, Any]] | None = None  # what texts and questions were when the run was queued
    used: dict[FileId, int] = field(default_factory=dict)  # bytes that the files of this run's stages take on disk
    written: dict[int, float] = field(default_factory=dict)  # when progress was last written to the database, by the stage's number
    disk_high_water: int = 0
    counting: Lock = field(default_factory=Lock)  # stages may be at work in several threads

    @property
    def logs(self) -> Path:
        """The folder of the run's logs."""
        return self.stages.logs / f"run-{self.run.id}"

    @cached_property
    def waivers(self) -> tuple[Waiver, ...]:
        """The run's waivers as they were when it was first asked for them: one run judges all its variants by the same."""
        return tuple(item.waiver for item in self.store.waivers(self.run.id))

    @cached_property
    def approved(self) -> tuple[str, ...]:
        """Digests of what a person approved for the run, as it was when it was first asked for."""
        return tuple(item.hold.digest for item in self.store.holds(self.run.id) if item.approval is not None)

    def hold(self, found: Sequence[Hold], *, last: bool = False) -> list[Hold]:
        """Keep what a person has to decide, and return what nobody has decided yet; `last` says that it is about publishing, and not about going on.

        Of the two, each leaves alone what was found of the other.
        """
        asked_before = self.recipe.publish.hold != "never"
        others = [item.hold for item in self.store.holds(self.run.id) if (item.hold.subject == PUBLISHING) is not last and (last or asked_before)]
        self.store.record_holds(self.run.id, [*others, *found])
        return [hold for hold in found if hold.digest not in self.approved]

    def record_patches(self, patches: Sequence[Patch]) -> None:
        """Keep the changes that fixes made."""
        self.store.record_patches(self.run.id, patches)

    def verdict(self, variant: Variant, verdict: Verdict) -> None:
        """Tell the listener how a variant came out."""
        state: Literal["done", "failed"] = "done" if verdict.outcome is Outcome.PASSED else "failed"
        waived = [f"The gate {item.gate} is waived by {item.by}." for item in verdict.waivers]
        self.listener(Event(stage=f"gates {variant.tag}", state=state, message=" ".join([*verdict.reasons, *waived])))

    def fence(self, *, pausing: bool = True) -> None:
        """Hold the run until what is published next is surely there or refused.

        Raises Withdrawn when a person does not want it to go on, or, if it is `pausing`, wants it to wait; LeaseLost.
        """
        wanted = self._wanted(seconds=COMMIT_SECONDS)
        if wanted == "cancel" or (wanted == "pause" and pausing):
            raise Withdrawn(wanted)

    def _checkpoint(self) -> None:
        """Raise Withdrawn when a person cancelled the run, LeaseLost when another process has it by now, so that this one leaves off."""
        if (wanted := self._wanted()) == "cancel":
            raise Withdrawn(wanted)

    def _wanted(self, *, seconds: float = 0.0) -> Wanted | None:
        """What a person asked of the run, which is held for so long. Raises LeaseLost."""
        return None if self.run.worker is None else self.store.prove_lease(self.run.id, self.run.lease, seconds=seconds)

    def begun(self, name: str, key: str) -> int:
        """Note that a stage of the run was begun. Raises LeaseLost, Withdrawn."""
        self._checkpoint()
        record = self.store.stage_started(self.run.id, name, key, estimate=self.estimates.get(name), stage=self.within)
        super().begun(name, key)
        return record

    def found(self, name: str, output: Output, seconds: float) -> None:
        """Note that a stage of the run needs not be done. Raises LeaseLost, Withdrawn."""
        self._checkpoint()
        self.store.stage_reused(self.run.id, name, output.key, stage=self.within, seconds=seconds, artifacts=_artifacts(output))
        self._use(output)
        super().found(name, output, seconds)

    def progressed(self, number: int, name: str, seconds: float, progress: Progress) -> None:
        """Note how far a stage of the run has come; in the database once a second at most, and how it ends. Raises LeaseLost, Withdrawn."""
        if progress.done == progress.total or now() - self.written.get(number, 0.0) >= WRITE_SECONDS:
            self.written[number] = now()
            try:
                self._checkpoint()
                self.store.stage_progressed(number, progress)
            except SQLAlchemyError as error:  # nobody's work is to end because a figure could not be written
                log.warning("progress of %s in run %d not written: %s", name, self.run.id, error, extra={"action": "progress"})
        super().progressed(number, name, seconds, progress)

    def ended(self, number: int, name: str, state: Ending, seconds: float, *, output: Output | None = None, message: str = "") -> None:
        """Note how a stage of the run ended. Raises LeaseLost: what it made stays in the store of stages, where it is found again."""
        self._wanted()
        error = message if state == "failed" else None
        self.store.stage_finished(number, state=state, seconds=seconds, error=error, artifacts=() if output is None else _artifacts(output))
        if output is not None:
            self._use(output)
        super().ended(number, name, state, seconds, output=output, message=message)

    def _use(self, output: Output) -> None:
        """Count a finished stage's folder, which nothing changes any more."""
        files = blocks([output.folder])
        with self.counting:
            self.used |= files
            self.disk_high_water = max(self.disk_high_water, sum(self.used.values()))

    def _sample(self, workspace: Path) -> None:
        files = blocks([workspace])
        with self.counting:
            self.disk_high_water = max(self.disk_high_water, sum({**self.used, **files}.values()))

    @contextmanager
    def watching(self, workspace: Path) -> Iterator[None]:
        """Sample the disk while a stage works, since its temporary files may be its largest."""

        def watch() -> bool:
            self._sample(workspace)
            return True

        with repeated(watch, seconds=DISK_SAMPLE, name="disk"):
            yield


def _artifacts(output: Output) -> tuple[Artifact, ...]:
    return tuple(Artifact(name=file.path, sha256=file.sha256, bytes=file.bytes) for file in output.files)
