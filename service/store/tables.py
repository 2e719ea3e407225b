"""The tables. A change here needs a migration beside it; a test compares the two."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    DDL,
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    event,
    false,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from service.store.append_only import APPEND_ONLY


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime, kept as UTC on every database (SQLite itself keeps no zone)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To UTC; a naive value is a mistake of the program."""
        if value is not None and value.tzinfo is None:
            raise ValueError("a time without a zone cannot be stored")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Aware again, in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Common metadata: constraint names are derived, so that migrations can name them on both databases."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UtcDateTime(), dict[str, Any]: JSON(), list[str]: JSON(), list[dict[str, Any]]: JSON()}  # noqa: RUF012


class ReleaseRow(Base):
    """An upstream repo at one commit."""

    __tablename__ = "releases"
    __table_args__ = (UniqueConstraint("repo", "sha"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    repo: Mapped[str] = mapped_column(String(200))
    sha: Mapped[str] = mapped_column(String(64))
    created: Mapped[datetime]


class RecipeRow(Base):
    """A recipe that runs were queued with, by the digest that these name."""

    __tablename__ = "recipes"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    content: Mapped[dict[str, Any]]
    sources: Mapped[list[dict[str, Any]]]  # its texts and questions with their digests, as `service.release.datasets.sources` describes them
    at: Mapped[datetime]


class RunRow(Base):
    """One recipe applied to one release, and who is working on it until when."""

    __tablename__ = "runs"
    __table_args__ = (
        UniqueConstraint("release_id", "recipe_digest", "namespace"),
        Index(None, "state", "queued"),
        CheckConstraint("state IN ('queued', 'running', 'paused', 'done', 'blocked', 'held', 'superseded', 'failed', 'cancelled')", name="state"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    release_id: Mapped[int] = mapped_column(ForeignKey("releases.id"))
    recipe: Mapped[str] = mapped_column(Text)
    recipe_digest: Mapped[str] = mapped_column(String(64))
    namespace: Mapped[str] = mapped_column(String(200))  # of a run that leaves its repos in a folder followed by what stands for that: see `queue.place_of`
    private: Mapped[bool]
    fixes_as_pr: Mapped[bool] = mapped_column(server_default=false())
    state: Mapped[str] = mapped_column(String(16))
    trigger: Mapped[str] = mapped_column(String(64))
    attempt: Mapped[int]
    error: Mapped[str | None] = mapped_column(Text)
    worker: Mapped[str | None] = mapped_column(String(200))
    lease_until: Mapped[datetime | None]
    created: Mapped[datetime]
    queued: Mapped[datetime]
    started: Mapped[datetime | None]
    finished: Mapped[datetime | None]
    disk_high_water: Mapped[int | None] = mapped_column(BigInteger)
    forecast: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))  # of the attempt that it names; see `Results.record_forecast`
    folder: Mapped[str | None] = mapped_column(Text)  # that the release is taken from
    target: Mapped[str | None] = mapped_column(Text)  # the folder that repos are left in
    quick: Mapped[bool | None]  # on small samples
    rollback: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))  # a config.words.Rollback
    lease: Mapped[int] = mapped_column(server_default="0")  # how often the run was leased: what a worker shows to prove that it still has it
    crashes: Mapped[int] = mapped_column(server_default="0")  # workers in a row that ended without a word before they ended a stage
    due: Mapped[datetime | None]  # of a queued one: not taken before
    waits: Mapped[int] = mapped_column(server_default="0")  # times in a row that it was put back because of the Hub
    priority: Mapped[int] = mapped_column(server_default="0")  # the highest is carried out first
    wanted: Mapped[str | None] = mapped_column(String(16))  # what a person asked of the run while it was carried out: "cancel" or "pause"
    redo: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))  # stages that this attempt does anew

    release: Mapped[ReleaseRow] = relationship(lazy="joined", innerjoin=True)


class StageRow(Base):
    """One time that a step of a run was begun. The newest row of a name counts; the older ones are its history."""

    __tablename__ = "stages"
    __table_args__ = (CheckConstraint("state IN ('running', 'done', 'failed', 'reused', 'interrupted')", name="state"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), index=True)
    name: Mapped[str] = mapped_column(String(200))
    key: Mapped[str] = mapped_column(String(64), index=True)
    state: Mapped[str] = mapped_column(String(16))
    started: Mapped[datetime]
    seconds: Mapped[float | None]
    error: Mapped[str | None] = mapped_column(Text)
    stage: Mapped[str | None] = mapped_column(String(200))  # of the release, whose step it is
    estimate: Mapped[float | None]
    done: Mapped[int | None] = mapped_column(BigInteger)
    total: Mapped[int | None] = mapped_column(BigInteger)
    unit: Mapped[str | None] = mapped_column(String(32))
    reported: Mapped[datetime | None]
    phase_done: Mapped[int | None] = mapped_column(BigInteger)  # the first report in this unit, on which rate and time left rest
    phase_began: Mapped[datetime | None]

    artifacts: Mapped[list["ArtifactRow"]] = relationship(order_by="ArtifactRow.id", lazy="selectin", cascade="all, delete-orphan")


class ArtifactRow(Base):
    """A file that a stage made."""

    __tablename__ = "artifacts"
    __table_args__ = (UniqueConstraint("stage_id", "name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    stage_id: Mapped[int] = mapped_column(ForeignKey("stages.id"))
    name: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str] = mapped_column(String(64))
    bytes: Mapped[int] = mapped_column(BigInteger)


class PatchRow(Base):
    """One recorded change that a fix made."""

    __tablename__ = "patches"
    __table_args__ = (UniqueConstraint("run_id", "position"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"))
    position: Mapped[int]
    fix: Mapped[str] = mapped_column(String(200))
    version: Mapped[int]
    file: Mapped[str] = mapped_column(Text)
    key: Mapped[str] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(Text)
    before: Mapped[Any] = mapped_column(JSON, nullable=False)  # JSON null, not SQL NULL
    after: Mapped[Any] = mapped_column(JSON, nullable=False)


class VerdictRow(Base):
    """One variant of a run and how its gates came out; `outcome` is null while it is not judged."""

    __tablename__ = "verdicts"
    __table_args__ = (
        UniqueConstraint("run_id", "tag"),
        CheckConstraint("outcome IN ('passed', 'failed', 'error')", name="outcome"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"))
    position: Mapped[int]
    tag: Mapped[str] = mapped_column(String(64))
    kind: Mapped[str] = mapped_column(String(16))
    file: Mapped[str | None] = mapped_column(Text)
    bytes: Mapped[int | None] = mapped_column(BigInteger)
    bpw: Mapped[float | None]
    outcome: Mapped[str | None] = mapped_column(String(16))
    reasons: Mapped[list[str]]
    results: Mapped[list[dict[str, Any]]]
    samples: Mapped[list[dict[str, Any]] | None] = mapped_column(JSON(none_as_null=True))  # of config.words.Sample; null in what an older version wrote

    measurements: Mapped[list["MeasurementRow"]] = relationship(order_by="MeasurementRow.id", lazy="selectin", cascade="all, delete-orphan")


class MeasurementRow(Base):
    """A number about a variant, with its unit and error."""

    __tablename__ = "measurements"
    __table_args__ = (UniqueConstraint("verdict_id", "name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    verdict_id: Mapped[int] = mapped_column(ForeignKey("verdicts.id"))
    name: Mapped[str] = mapped_column(String(64))
    value: Mapped[float]
    unit: Mapped[str] = mapped_column(String(32))
    stderr: Mapped[float | None]
    n: Mapped[int | None] = mapped_column(BigInteger)
    details: Mapped[list[str]]


class WaiverRow(Base):
    """A gate of a run that a person set aside for one variant."""

    __tablename__ = "waivers"
    __table_args__ = (
        UniqueConstraint("run_id", "tag", "gate"),
        CheckConstraint("outcome IN ('failed', 'error')", name="outcome"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"))
    tag: Mapped[str] = mapped_column(String(64))
    gate: Mapped[str] = mapped_column(Text)
    outcome: Mapped[str] = mapped_column(String(16))
    by: Mapped[str] = mapped_column(Text)
    comment: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime]


class HoldRow(Base):
    """Something about a run's release that a person has to decide; with the decision, once that was made."""

    __tablename__ = "holds"
    __table_args__ = (UniqueConstraint("run_id", "subject"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"))
    subject: Mapped[str] = mapped_column(String(200))
    reason: Mapped[str] = mapped_column(Text)
    patches: Mapped[list[dict[str, Any]]]
    approved_by: Mapped[str | None] = mapped_column(Text)
    comment: Mapped[str | None] = mapped_column(Text)
    approved_at: Mapped[datetime | None]


class PublicationRow(Base):
    """A commit on the Hub, or a folder, that holds exactly the files of a verdict."""

    __tablename__ = "publications"
    __table_args__ = (UniqueConstraint("run_id", "repo"), Index(None, "repo", "at"))

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"))
    repo: Mapped[str] = mapped_column(Text)  # or the folder's path
    revision: Mapped[str] = mapped_column(String(64))
    url: Mapped[str] = mapped_column(Text)
    files: Mapped[list[str]]
    manifest_digest: Mapped[str] = mapped_column(String(64))
    changed: Mapped[bool]
    at: Mapped[datetime]
    unpublished: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))  # who made the repo private again, when and why


class PullRequestRow(Base):
    """The pull request by which a run's fixes were offered to its upstream."""

    __tablename__ = "pull_requests"
    __table_args__ = (CheckConstraint("state IN ('opened', 'open', 'merged', 'closed')", name="state"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), unique=True)
    repo: Mapped[str] = mapped_column(String(200))
    number: Mapped[int]
    url: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16))
    files: Mapped[list[str]]
    at: Mapped[datetime]


class FollowUpRow(Base):
    """Something that is still to do for a run that is done, and failed when it was tried."""

    __tablename__ = "follow_ups"
    __table_args__ = (UniqueConstraint("run_id", "kind"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"))
    kind: Mapped[str] = mapped_column(String(32))
    details: Mapped[dict[str, Any]]
    attempts: Mapped[int]
    error: Mapped[str] = mapped_column(Text)
    due: Mapped[datetime]


class AuditRow(Base):
    """Something that happened. Triggers refuse to change a row, and to delete one that is not beyond the horizon."""

    __tablename__ = "audit_events"

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    source: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str] = mapped_column(String(250), index=True)
    action: Mapped[str] = mapped_column(String(64))
    details: Mapped[dict[str, Any]]


class HorizonRow(Base):
    """Before when audit events may be deleted; there is one only within the transaction that does so."""

    __tablename__ = "audit_horizon"

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]


class SightingRow(Base):
    """What a watched revision named when it was last looked at."""

    __tablename__ = "sightings"
    __table_args__ = (UniqueConstraint("repo", "revision", "recipe"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    repo: Mapped[str] = mapped_column(String(200))
    revision: Mapped[str] = mapped_column(Text)
    recipe: Mapped[str] = mapped_column(Text)
    sha: Mapped[str] = mapped_column(String(64))
    newest: Mapped[str] = mapped_column(String(64))
    place: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    at: Mapped[datetime]


class HintRow(Base):
    """Word that a watched repo may have changed, until somebody has looked."""

    __tablename__ = "hints"

    id: Mapped[int] = mapped_column(primary_key=True)
    repo: Mapped[str] = mapped_column(String(200), unique=True)
    source: Mapped[str] = mapped_column(String(64))
    count: Mapped[int]
    attempts: Mapped[int]
    error: Mapped[str | None] = mapped_column(Text)
    created: Mapped[datetime]
    due: Mapped[datetime] = mapped_column(index=True)
    rebuild: Mapped[bool] = mapped_column(server_default=false())  # the newest commit is to be released though it was
    rebuilt: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))  # entries of the watch list for which that is done


class LookRow(Base):
    """The commit that the last look at a watched branch found, and that needs no other look."""

    __tablename__ = "looks"
    __table_args__ = (UniqueConstraint("repo", "revision", "asked"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    repo: Mapped[str] = mapped_column(String(200))
    revision: Mapped[str] = mapped_column(String(200))
    asked: Mapped[str] = mapped_column(String(64))  # see service.release.watchlist.asked
    sha: Mapped[str] = mapped_column(String(64))
    at: Mapped[datetime]


class ListingRow(Base):
    """How an owner's repos were listed the last time."""

    __tablename__ = "listings"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(String(100), unique=True)
    repos: Mapped[int]
    at: Mapped[datetime]
    error: Mapped[str | None] = mapped_column(Text)


for _dialect, _statements in APPEND_ONLY.items():
    for _statement in _statements:
        event.listen(AuditRow.__table__, "after_create", DDL(_statement).execute_if(dialect=_dialect))  # type: ignore[no-untyped-call]
