"""The newest release stays published: superseded runs, roll-backs, what watched revisions named, and numbered leases."""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

_OF_RUNS = ("artifacts", "measurements", "stages", "patches", "verdicts", "waivers", "holds", "publications", "pull_requests")  # each before what it refers to
_BEFORE = "state IN ('queued', 'running', 'done', 'blocked', 'held', 'failed')"
_AFTER = "state IN ('queued', 'running', 'done', 'blocked', 'held', 'superseded', 'failed')"


def upgrade() -> None:
    """Let a run be superseded, add what tells leases apart, and create the table of sightings."""
    op.add_column("runs", sa.Column("rollback", sa.JSON(), nullable=True))
    for name in ("lease", "crashes"):
        op.add_column("runs", sa.Column(name, sa.Integer(), nullable=False, server_default="0"))
    _states(_AFTER)
    op.create_table(
        "sightings",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("repo", sa.String(200), nullable=False),
        sa.Column("revision", sa.Text(), nullable=False),
        sa.Column("recipe", sa.Text(), nullable=False),
        sa.Column("sha", sa.String(64), nullable=False),
        sa.Column("newest", sa.String(64), nullable=False),
        sa.Column("place", sa.JSON(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("repo", "revision", "recipe"),
    )


def downgrade() -> None:
    """Drop it; an older version knows a superseded run as one that failed."""
    op.drop_table("sightings")
    op.execute("UPDATE runs SET state = 'failed' WHERE state = 'superseded'")
    _states(_BEFORE)
    for name in ("crashes", "lease", "rollback"):
        op.drop_column("runs", name)


def _states(condition: str) -> None:
    with _aside(), op.batch_alter_table("runs") as batch:
        batch.drop_constraint("state", type_="check")
        batch.create_check_constraint("state", condition)


@contextmanager
def _aside() -> Iterator[None]:
    """SQLite changes a constraint by copying the table and dropping the old one, which it refuses while other tables refer to it."""
    if op.get_bind().dialect.name != "sqlite":
        yield
        return
    for table in _OF_RUNS:
        op.execute(f"CREATE TEMPORARY TABLE {table}_aside AS SELECT * FROM {table}")  # noqa: S608
        op.execute(f"DELETE FROM {table}")  # noqa: S608
    yield
    for table in reversed(_OF_RUNS):
        op.execute(f"INSERT INTO {table} SELECT * FROM {table}_aside")  # noqa: S608
        op.execute(f"DROP TABLE {table}_aside")
