"""Releases that are held until a person has decided something."""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_OF_RUNS = ("artifacts", "measurements", "stages", "patches", "verdicts", "waivers", "publications", "pull_requests")  # each before what it refers to
_BEFORE = "state IN ('queued', 'running', 'done', 'blocked', 'failed')"
_AFTER = "state IN ('queued', 'running', 'done', 'blocked', 'held', 'failed')"


def upgrade() -> None:
    """Let a run be held, and create the table of what has to be decided."""
    _states(_AFTER)
    op.create_table(
        "holds",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("run_id", sa.Integer(), sa.ForeignKey("runs.id"), nullable=False),
        sa.Column("subject", sa.String(200), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("patches", sa.JSON(), nullable=False),
        sa.Column("approved_by", sa.Text(), nullable=True),
        sa.Column("comment", sa.Text(), nullable=True),
        sa.Column("approved_at", sa.DateTime(timezone=True), nullable=True),
        sa.UniqueConstraint("run_id", "subject"),
    )


def downgrade() -> None:
    """Drop it; an older version knows a held run as one that failed."""
    op.drop_table("holds")
    op.execute("UPDATE runs SET state = 'failed', error = 'The release was held.' WHERE state = 'held'")
    _states(_BEFORE)


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
