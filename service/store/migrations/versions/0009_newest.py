"""The newest release stays published: superseded runs, roll-backs, what watched revisions named, and numbered leases."""

import sqlalchemy as sa
from alembic import op

from service.store import run_states

revision = "0009"
down_revision = "0008"

_BEFORE = "state IN ('queued', 'running', 'done', 'blocked', 'held', 'failed')"
_AFTER = "state IN ('queued', 'running', 'done', 'blocked', 'held', 'superseded', 'failed')"


def upgrade() -> None:
    """Let a run be superseded, add what tells leases apart, and create the table of sightings."""
    op.add_column("runs", sa.Column("rollback", sa.JSON(), nullable=True))
    for name in ("lease", "crashes"):
        op.add_column("runs", sa.Column(name, sa.Integer(), nullable=False, server_default="0"))
    run_states.allow(_AFTER)
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
    run_states.allow(_BEFORE)
    for name in ("crashes", "lease", "rollback"):
        op.drop_column("runs", name)
