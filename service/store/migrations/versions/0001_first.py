"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

TABLES = ("measurements", "artifacts", "verdicts", "stages", "publications", "patches", "runs", "releases", "hints", "audit_events", "api_tokens")

APPEND_ONLY = {
    "sqlite": (
        "CREATE TRIGGER audit_events_no_update BEFORE UPDATE ON audit_events BEGIN SELECT RAISE(ABORT, 'audit_events is append-only'); END",
        "CREATE TRIGGER audit_events_no_delete BEFORE DELETE ON audit_events BEGIN SELECT RAISE(ABORT, 'audit_events is append-only'); END",
    ),
    "postgresql": (
        "CREATE FUNCTION audit_events_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'audit_events is append-only'; END $$",
        "CREATE TRIGGER audit_events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_events EXECUTE FUNCTION audit_events_refuse()",
    ),
}


def upgrade() -> None:
    """Create every table."""
    _ledger()
    _runs()
    _stages()
    _verdicts()
    for statement in APPEND_ONLY[op.get_bind().dialect.name]:
        op.execute(statement)


def downgrade() -> None:
    """Drop every table."""
    for table in TABLES:
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION audit_events_refuse()")


def _id() -> sa.Column[int]:
    return sa.Column("id", sa.Integer(), primary_key=True)


def _time(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _of(table: str, column: str) -> sa.Column[int]:
    return sa.Column(column, sa.Integer(), sa.ForeignKey(f"{table}.id"), nullable=False)


def _ledger() -> None:
    op.create_table(
        "api_tokens",
        _id(),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        _time("created"),
        _time("revoked", nullable=True),
        sa.UniqueConstraint("digest"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "audit_events",
        _id(),
        _time("at"),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(250), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
    )
    op.create_index("ix_audit_events_subject", "audit_events", ["subject"])
    op.create_table(
        "hints",
        _id(),
        sa.Column("repo", sa.String(200), nullable=False),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        _time("created"),
        _time("due"),
        sa.UniqueConstraint("repo"),
    )
    op.create_index("ix_hints_due", "hints", ["due"])


def _runs() -> None:
    op.create_table(
        "releases",
        _id(),
        sa.Column("repo", sa.String(200), nullable=False),
        sa.Column("sha", sa.String(64), nullable=False),
        _time("created"),
        sa.UniqueConstraint("repo", "sha"),
    )
    op.create_table(
        "runs",
        _id(),
        _of("releases", "release_id"),
        sa.Column("recipe", sa.Text(), nullable=False),
        sa.Column("recipe_digest", sa.String(64), nullable=False),
        sa.Column("namespace", sa.String(200), nullable=False),
        sa.Column("private", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("trigger", sa.String(64), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("worker", sa.String(200), nullable=True),
        _time("lease_until", nullable=True),
        _time("created"),
        _time("queued"),
        _time("started", nullable=True),
        _time("finished", nullable=True),
        sa.Column("disk_high_water", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("state IN ('queued', 'running', 'done', 'blocked', 'failed')", name="state"),
        sa.UniqueConstraint("release_id", "recipe_digest", "namespace"),
    )
    op.create_index("ix_runs_state_queued", "runs", ["state", "queued"])


def _stages() -> None:
    op.create_table(
        "stages",
        _id(),
        _of("runs", "run_id"),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        _time("started"),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.CheckConstraint("state IN ('running', 'done', 'failed', 'reused')", name="state"),
    )
    op.create_index("ix_stages_run_id", "stages", ["run_id"])
    op.create_table(
        "artifacts",
        _id(),
        _of("stages", "stage_id"),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.UniqueConstraint("stage_id", "name"),
    )
    op.create_table(
        "patches",
        _id(),
        _of("runs", "run_id"),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("fix", sa.String(200), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("before", sa.JSON(), nullable=False),
        sa.Column("after", sa.JSON(), nullable=False),
        sa.UniqueConstraint("run_id", "position"),
    )


def _verdicts() -> None:
    op.create_table(
        "verdicts",
        _id(),
        _of("runs", "run_id"),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("tag", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("file", sa.Text(), nullable=True),
        sa.Column("bytes", sa.BigInteger(), nullable=True),
        sa.Column("bpw", sa.Double(), nullable=True),
        sa.Column("outcome", sa.String(16), nullable=True),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.Column("results", sa.JSON(), nullable=False),
        sa.CheckConstraint("outcome IN ('passed', 'failed', 'error')", name="outcome"),
        sa.UniqueConstraint("run_id", "tag"),
    )
    op.create_table(
        "measurements",
        _id(),
        _of("verdicts", "verdict_id"),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("unit", sa.String(32), nullable=False),
        sa.Column("stderr", sa.Double(), nullable=True),
        sa.Column("n", sa.BigInteger(), nullable=True),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.UniqueConstraint("verdict_id", "name"),
    )
    op.create_table(
        "publications",
        _id(),
        _of("runs", "run_id"),
        sa.Column("repo", sa.String(200), nullable=False),
        sa.Column("revision", sa.String(64), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("files", sa.JSON(), nullable=False),
        sa.Column("manifest_digest", sa.String(64), nullable=False),
        sa.Column("changed", sa.Boolean(), nullable=False),
        _time("at"),
        sa.UniqueConstraint("run_id", "repo"),
    )
    op.create_index("ix_publications_repo_at", "publications", ["repo", "at"])
