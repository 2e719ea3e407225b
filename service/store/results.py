"""What runs bring forth: stages with their artifacts, patches, variants with measurements and verdicts, publications. Recording again replaces."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from datetime import datetime
from typing import Any, Literal, cast

from sqlalchemy import Select, delete, func, or_, select, update
from sqlalchemy.orm import Session

from config.errors import SluiceError
from config.progress import Progress
from config.words import GateResult, Measurement, Outcome, Patch, Rollback, Sample, Variant, Verdict, Waiver
from service.pace import Phase, heard
from service.store.database import Database, StoreError, now
from service.store.ledger import note
from service.store.openings import give_up_opening
from service.store.queue import leased, matching, state_of
from service.store.records import Artifact, Foretold, PublicationRecord, Published, RunFilter, StageRecord, StageState, Unpublished, VariantRecord
from service.store.tables import ArtifactRow, MeasurementRow, PatchRow, PublicationRow, ReleaseRow, RunRow, StageRow, VerdictRow


class UnknownPublication(SluiceError):
    """No publication has that number."""


class Results(Database):
    """What runs bring forth."""

    def stage_started(self, run: int, name: str, key: str, *, stage: str = "", estimate: float | None = None) -> int:
        """Note that a step of the run was begun, which is expected to take `estimate` seconds; its number. `name` is unique within a run.

        `stage` is the stage of the release whose step it is.
        """
        with self.write() as session:
            session.add(row := StageRow(run_id=run, name=name, key=key, state="running", started=now(), stage=stage or None, estimate=estimate))
            session.flush()
            return row.id

    def stage_progressed(self, id: int, progress: Progress) -> None:
        """Note how far a stage at work has come; what is said of one that has ended comes too late and changes nothing."""
        with self.write() as session:
            row = _stage_row(session, id)
            if row.state == "running":
                phase = heard(_phase(row), progress, now())
                row.done, row.total, row.unit, row.reported = progress.done, progress.total, progress.unit, phase.reported
                row.phase_done, row.phase_began = phase.first, phase.began

    def stage_finished(
        self, id: int, *, state: Literal["done", "failed", "reused"], seconds: float, error: str | None = None, artifacts: Sequence[Artifact] = ()
    ) -> None:
        """Note how the stage ended, how long it took, and what it made (of a reused one: had made)."""
        with self.write() as session:
            row = _stage_row(session, id)
            row.state, row.seconds, row.error = state, seconds, error
            row.artifacts = [ArtifactRow(name=item.name, sha256=item.sha256, bytes=item.bytes) for item in artifacts]
            if state == "done":  # the run comes forward, whatever became of the workers before
                session.execute(update(RunRow).where(RunRow.id == row.run_id, RunRow.crashes > 0).values(crashes=0))

    def stage_reused(self, run: int, name: str, key: str, *, stage: str = "", seconds: float, artifacts: Sequence[Artifact]) -> None:
        """Note that a stage of the run needed not be done: its outputs were there, and found in so many seconds."""
        with self.write() as session:
            row = StageRow(run_id=run, name=name, key=key, state="reused", stage=stage or None, started=now(), seconds=seconds)
            row.artifacts = [ArtifactRow(name=item.name, sha256=item.sha256, bytes=item.bytes) for item in artifacts]
            session.add(row)

    def stages(self, run: int) -> tuple[StageRecord, ...]:
        """The run's stages in the order in which they were last begun."""
        newest = select(func.max(StageRow.id)).where(StageRow.run_id == run).group_by(StageRow.name)
        with self.read() as session:
            of = session.get(RunRow, run)
            going_on = of is not None and state_of(of) == "running"
            rows = session.scalars(select(StageRow).where(StageRow.id.in_(newest)).order_by(StageRow.id))
            return tuple(_stage(row, going_on=going_on) for row in rows)

    def record_forecast(self, run: int, stages: Mapping[str, Foretold]) -> None:
        """Keep how long each stage of the run's present attempt is expected to take, by its name in the graph and in its order."""
        with self.write() as session:
            row = session.get(RunRow, run)
            if row is not None:
                told = [[name, item.like, item.reckoned, item.correction] for name, item in stages.items()]
                row.forecast = {"attempt": row.attempt, "at": now().isoformat(), "stages": told}

    def forecast(self, run: int) -> dict[str, Foretold]:
        """How long each stage of the run's present attempt was expected to take; nothing of one that nobody reckoned with."""
        with self.read() as session:
            row = session.get(RunRow, run)
            return {} if row is None or (row.forecast or {}).get("attempt") != row.attempt else _forecast(row)

    def forecasts(self, *, runs: int = 20) -> tuple[tuple[dict[str, Foretold], dict[str, float]], ...]:
        """Of the latest runs that came to their end: what was expected of each stage, and the seconds that its steps took together, where none was reused."""
        query = select(RunRow).where(RunRow.state.in_(("done", "blocked")), RunRow.forecast.is_not(None)).order_by(RunRow.id.desc()).limit(runs)
        with self.read() as session:
            return tuple((_forecast(row), _taken(session, row)) for row in session.scalars(query))

    def record_patches(self, run: int, patches: Sequence[Patch]) -> None:
        """Keep the changes that fixes made to the run's release, in order."""
        with self.write() as session:
            session.execute(delete(PatchRow).where(PatchRow.run_id == run))
            session.add_all(PatchRow(run_id=run, position=position, **asdict(patch)) for position, patch in enumerate(patches))

    def patches(self, run: int) -> tuple[Patch, ...]:
        """The changes that fixes made, in order."""
        with self.read() as session:
            rows = session.scalars(select(PatchRow).where(PatchRow.run_id == run).order_by(PatchRow.position))
            return tuple(Patch(**{field.name: getattr(row, field.name) for field in fields(Patch)}) for row in rows)

    def record_variant(self, run: int, record: VariantRecord, *, position: int) -> None:
        """Keep what was built, measured and judged of a variant; `position` is its place in the recipe. A value that is not a number was not measured."""
        variant, verdict = record.variant, record.verdict
        with self.write() as session:
            row = session.scalars(select(VerdictRow).where(VerdictRow.run_id == run, VerdictRow.tag == variant.tag)).first()
            if row is not None and row.position == position and _variant(row) == _kept(record):
                return
            if row is None:
                session.add(row := VerdictRow(run_id=run, tag=variant.tag))
            else:
                row.measurements.clear()
                session.flush()  # the old measurements must be gone before new ones take their names
            row.position, row.kind, row.file, row.bytes, row.bpw = position, str(variant.kind), record.file, record.bytes, record.bpw
            row.outcome = None if verdict is None else verdict.outcome.value
            row.reasons = [] if verdict is None else list(verdict.reasons)
            row.results = [] if verdict is None else [asdict(result) for result in verdict.results]
            row.samples = [asdict(sample) for sample in record.samples]
            row.measurements = [_measurement_row(item) for item in record.measurements if not math.isnan(item.value)]

    def variants(self, run: int) -> tuple[VariantRecord, ...]:
        """The run's variants in the order of the recipe."""
        with self.read() as session:
            return tuple(_variant(row) for row in session.scalars(select(VerdictRow).where(VerdictRow.run_id == run).order_by(VerdictRow.position)))

    def record_publication(
        self, run: int, published: Published, *, rollback: Rollback | None = None, lease: int | None = None, opened: Unpublished | None = None
    ) -> int:
        """Keep that the run's repo holds exactly these files at this commit; the publication's number, the same for the same run and repo.

        What nobody kept before counts as a change: whoever committed it was killed, or lost the database, before that. So does what this run has changed since
        it was begun.
        `rollback` is what it was allowed to take the place of. A repo that was taken back stays so, unless that is what `opened` says: a person has made it
        public since. Raises LeaseLost when `lease` is given and is not that of the run any more.
        """
        repo, revision, digest = published.repo, published.revision, published.manifest_digest
        with self.write() as session:
            if lease is not None:
                leased(session, run, lease)
            last, begun = session.scalars(_newest(repo)).first(), session.get_one(RunRow, run).started
            new = published.changed or last is None or last.manifest_digest != digest
            row = session.scalars(select(PublicationRow).where(PublicationRow.run_id == run, PublicationRow.repo == repo)).first()
            changed = new or (row is not None and row.changed and begun is not None and row.at >= begun)
            if row is None:
                session.add(row := PublicationRow(run_id=run, repo=repo, unpublished=_mark(_taken_back(session, repo))))
            row.revision, row.url, row.files, row.manifest_digest = revision, published.url, list(published.files), digest
            row.changed, row.at = changed, now()
            session.flush()
            if opened is not None and opened == _taken_back(session, repo):
                _mark_all(session, repo, None)
            details = {"run": run, "repo": repo, "revision": revision, "manifest_digest": digest}
            if rollback is not None:
                details["rollback"] = {"from": rollback.sha, "by": rollback.by, "comment": rollback.comment}
            note(session, _trigger(session, run), f"publication/{row.id}", "published" if new else "unchanged", details)
            return row.id

    def published_before(self, run: int, repo: str, tag: str) -> tuple[int, VariantRecord] | None:
        """The variant as another run than this one last published it to the repo from the same upstream, and that run's number; None when none did."""
        upstream = select(ReleaseRow.repo).join(RunRow, RunRow.release_id == ReleaseRow.id)
        query = (
            select(VerdictRow)
            .join(PublicationRow, PublicationRow.run_id == VerdictRow.run_id)
            .join(RunRow, RunRow.id == VerdictRow.run_id)
            .join(ReleaseRow, ReleaseRow.id == RunRow.release_id)
            .where(PublicationRow.repo == repo, VerdictRow.tag == tag, VerdictRow.outcome == Outcome.PASSED.value, VerdictRow.run_id != run)
            .where(ReleaseRow.repo == upstream.where(RunRow.id == run).correlate(None).scalar_subquery())
            .order_by(PublicationRow.at.desc(), PublicationRow.id.desc())
            .limit(1)
        )
        with self.read() as session:
            row = session.scalars(query).first()
            return None if row is None else (row.run_id, _variant(row))

    def publication(self, id: int) -> PublicationRecord:
        """The publication of that number. Raises UnknownPublication."""
        with self.read() as session:
            row = session.get(PublicationRow, id)
            if row is None:
                raise UnknownPublication(f"There is no publication {id}. A run's summary lists its publications.")
            return publication_record(row)

    def all_publications(
        self, *, limit: int = 50, repo: str | None = None, before: int | None = None, namespaces: tuple[str, ...] | None = None
    ) -> tuple[PublicationRecord, ...]:
        """The newest publications first, at most `limit`; only those in `repo`, with a number below `before`, of runs of these namespaces."""
        query = select(PublicationRow).order_by(PublicationRow.id.desc()).limit(limit)
        if repo is not None:
            query = query.where(PublicationRow.repo == repo)
        if before is not None:
            query = query.where(PublicationRow.id < before)
        with self.read() as session:
            if namespaces is not None:
                query = query.join(RunRow, RunRow.id == PublicationRow.run_id).where(*matching(session, RunFilter(namespaces=namespaces)))
            return tuple(publication_record(row) for row in session.scalars(query))

    def record_unpublished(self, id: int, *, by: str, reason: str, source: str, details: Mapping[str, Any]) -> PublicationRecord:
        """Keep that a publication's repo was made private, by whom and why, of all that was published in it; `details` go into the audit trail.

        One that was still to be opened is not opened any more. Raises UnknownPublication.
        """
        with self.write() as session:
            row = session.get(PublicationRow, id)
            if row is None:
                raise UnknownPublication(f"There is no publication {id}. A run's summary lists its publications.")
            _mark_all(session, row.repo, Unpublished(by=by, reason=reason, at=now()))
            give_up_opening(session, row.repo)
            note(session, source, f"publication/{id}", "unpublished", {"repo": row.repo, "by": by, "reason": reason, **details})
            return publication_record(row)

    def publications(self, run: int) -> tuple[PublicationRecord, ...]:
        """The run's publications in the order in which they were made."""
        with self.read() as session:
            return tuple(
                publication_record(row) for row in session.scalars(select(PublicationRow).where(PublicationRow.run_id == run).order_by(PublicationRow.id))
            )

    def published_since_begun(self, run: int) -> tuple[PublicationRecord, ...]:
        """Those of the run's publications that changed something since it was begun, whatever became of it afterwards, in order."""
        query = select(PublicationRow).join(RunRow, RunRow.id == PublicationRow.run_id).where(RunRow.id == run, PublicationRow.changed)
        with self.read() as session:
            rows = session.scalars(query.where(or_(RunRow.started.is_(None), PublicationRow.at >= RunRow.started)).order_by(PublicationRow.id))
            return tuple(publication_record(row) for row in rows)

    def last_publication(self, repo: str) -> PublicationRecord | None:
        """The newest publication in a repo on the Hub, whichever run made it; None when there never was one."""
        with self.read() as session:
            row = session.scalars(_newest(repo)).first()
            return None if row is None else publication_record(row)


def _newest(repo: str) -> Select[PublicationRow]:
    return select(PublicationRow).where(PublicationRow.repo == repo).order_by(PublicationRow.at.desc(), PublicationRow.id.desc()).limit(1)


def _taken_back(session: Session, repo: str) -> Unpublished | None:
    """Who made a repo private, of which every publication in it tells."""
    last = session.scalars(select(PublicationRow).where(PublicationRow.repo == repo).order_by(PublicationRow.id.desc()).limit(1)).first()
    return None if last is None else _unpublished(last)


def _mark_all(session: Session, repo: str, unpublished: Unpublished | None) -> None:
    for row in session.scalars(select(PublicationRow).where(PublicationRow.repo == repo)):
        row.unpublished = _mark(unpublished)


def _mark(unpublished: Unpublished | None) -> dict[str, Any] | None:
    return None if unpublished is None else {"by": unpublished.by, "reason": unpublished.reason, "at": unpublished.at.isoformat()}


def _forecast(row: RunRow) -> dict[str, Foretold]:
    stages = (row.forecast or {}).get("stages", ())
    return {name: Foretold(like=like, reckoned=reckoned, correction=correction) for name, like, reckoned, correction in stages}


def _taken(session: Session, run: RunRow) -> dict[str, float]:
    """Seconds by stage of the newest row of each step since the run's forecast; stages of which a step was reused left out."""
    since = datetime.fromisoformat((run.forecast or {})["at"])
    newest = select(func.max(StageRow.id)).where(StageRow.run_id == run.id, StageRow.started >= since).group_by(StageRow.name)
    taken: dict[str, float] = {}
    partly: set[str] = set()
    for stage, state, seconds in session.execute(select(StageRow.stage, StageRow.state, StageRow.seconds).where(StageRow.id.in_(newest))):
        if stage is not None and state == "done" and seconds is not None:
            taken[stage] = taken.get(stage, 0.0) + seconds
        elif stage is not None:
            partly.add(stage)
    return {stage: seconds for stage, seconds in taken.items() if stage not in partly}


def _trigger(session: Session, run: int) -> str:
    return session.scalars(select(RunRow.trigger).where(RunRow.id == run)).one()


def _measurement_row(item: Measurement) -> MeasurementRow:
    stderr = None if item.stderr is None or math.isnan(item.stderr) else item.stderr
    return MeasurementRow(name=item.name, value=item.value, unit=item.unit, stderr=stderr, n=item.n, details=list(item.details))


def _stage_row(session: Session, id: int) -> StageRow:
    row = session.get(StageRow, id)
    if row is None:
        raise StoreError(f"There is no stage {id}.")
    return row


def _stage(row: StageRow, *, going_on: bool) -> StageRecord:
    """The stage's record; in a run that does not go on, nobody is at it."""
    return StageRecord(
        id=row.id,
        name=row.name,
        key=row.key,
        state="interrupted" if row.state == "running" and not going_on else cast("StageState", row.state),
        stage=row.stage,
        started=row.started,
        seconds=row.seconds,
        estimate=row.estimate,
        phase=_phase(row),
        error=row.error,
        artifacts=tuple(Artifact(name=item.name, sha256=item.sha256, bytes=item.bytes) for item in row.artifacts),
    )


def _phase(row: StageRow) -> Phase | None:
    if row.done is None or row.unit is None or row.reported is None or row.phase_done is None or row.phase_began is None:
        return None
    latest = Progress(done=row.done, total=row.total, unit=row.unit)
    return Phase(first=row.phase_done, began=row.phase_began, latest=latest, reported=row.reported)


def _kept(record: VariantRecord) -> VariantRecord:
    """What is read back of a variant that was recorded."""
    rows = (_measurement_row(item) for item in record.measurements if not math.isnan(item.value))
    return replace(record, variant=Variant(tag=record.variant.tag, kind=record.variant.kind), measurements=tuple(_measurement(row) for row in rows))


def _measurement(row: MeasurementRow) -> Measurement:
    return Measurement(name=row.name, value=row.value, unit=row.unit, stderr=row.stderr, n=row.n, details=tuple(row.details))


def _variant(row: VerdictRow) -> VariantRecord:
    verdict = None
    if row.outcome is not None:
        verdict = Verdict(tag=row.tag, outcome=Outcome(row.outcome), reasons=tuple(row.reasons), results=tuple(_result(item) for item in row.results))
    return VariantRecord(
        variant=Variant(tag=row.tag, kind=row.kind),
        file=row.file,
        bytes=row.bytes,
        bpw=row.bpw,
        measurements=tuple(_measurement(item) for item in row.measurements),
        verdict=verdict,
        samples=tuple(Sample(**sample) for sample in row.samples or ()),
    )


def _result(item: dict[str, Any]) -> GateResult:
    waiver = item.get("waiver")  # verdicts written by an older version have none
    told = None if waiver is None else Waiver(**{**waiver, "outcome": Outcome(waiver["outcome"])})
    return GateResult(**{**item, "outcome": Outcome(item["outcome"]), "waiver": told})


def publication_record(row: PublicationRow) -> PublicationRecord:
    """A publication's row as it is handed out."""
    return PublicationRecord(
        id=row.id,
        run=row.run_id,
        repo=row.repo,
        revision=row.revision,
        url=row.url,
        files=tuple(row.files),
        manifest_digest=row.manifest_digest,
        changed=row.changed,
        at=row.at,
        unpublished=_unpublished(row),
    )


def _unpublished(row: PublicationRow) -> Unpublished | None:
    told = row.unpublished
    return None if told is None else Unpublished(by=told["by"], reason=told["reason"], at=datetime.fromisoformat(told["at"]))
