"""A run being carried out: does its stages once, records each in the database, tells a listener, and watches the disk."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from config.recipe import Recipe
from config.words import Outcome, Patch, Variant, Verdict, Waiver
from service.execution.kept import Output, disk_usage
from service.execution.workbench import Ending, Event, Workbench
from service.repeating import repeated
from service.store import Artifact, RunRecord, Store

DISK_SAMPLE = 0.5  # seconds between two looks at the disk


@dataclass(kw_only=True)
class Job(Workbench):
    """One run of one recipe on one release, with everything its stages need."""

    store: Store
    run: RunRecord
    recipe: Recipe
    used: list[Path] = field(default_factory=list)  # folders of this run's stages, for the disk figure
    disk_high_water: int = 0

    @property
    def logs(self) -> Path:
        """The folder of the run's logs."""
        return self.stages.logs / f"run-{self.run.id}"

    @cached_property
    def waivers(self) -> tuple[Waiver, ...]:
        """The run's waivers as they were when it was first asked for them: one run judges all its variants by the same."""
        return tuple(item.waiver for item in self.store.waivers(self.run.id))

    def record_patches(self, patches: Sequence[Patch]) -> None:
        """Keep the changes that fixes made."""
        self.store.record_patches(self.run.id, patches)

    def verdict(self, variant: Variant, verdict: Verdict) -> None:
        """Tell the listener how a variant came out."""
        state: Literal["done", "failed"] = "done" if verdict.outcome is Outcome.PASSED else "failed"
        waived = [f"The gate {item.gate} is waived by {item.by}." for item in verdict.waivers]
        self.listener(Event(stage=f"gates {variant.tag}", state=state, message=" ".join([*verdict.reasons, *waived])))

    def begun(self, name: str, key: str) -> int:
        """Note that a stage of the run was begun."""
        record = self.store.stage_started(self.run.id, name, key)
        super().begun(name, key)
        return record

    def ended(self, number: int, name: str, state: Ending, seconds: float, *, output: Output | None = None, message: str = "") -> None:
        """Note how a stage of the run ended."""
        artifacts = tuple(Artifact(name=file.path, sha256=file.sha256, bytes=file.bytes) for file in (() if output is None else output.files))
        self.store.stage_finished(number, state=state, seconds=seconds, error=message if state == "failed" else None, artifacts=artifacts)
        if output is not None:
            self.used.append(output.folder)
            self._sample(())
        super().ended(number, name, state, seconds, output=output, message=message)

    def _sample(self, extra: tuple[Path, ...]) -> None:
        self.disk_high_water = max(self.disk_high_water, disk_usage([*self.used, *extra]))

    @contextmanager
    def watching(self, workspace: Path) -> Iterator[None]:
        """Sample the disk while a stage works, since its temporary files may be its largest."""

        def watch() -> bool:
            self._sample((workspace,))
            return True

        with repeated(watch, seconds=DISK_SAMPLE, name="disk"):
            yield
