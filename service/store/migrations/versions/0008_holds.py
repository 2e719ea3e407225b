"""Releases that are held until a person has decided something."""

import sqlalchemy as sa
from alembic import op

from service.store import run_states

revision = "0008"
down_revision = "0007"

_BEFORE = "state IN ('queued', 'running', 'done', 'blocked', 'failed')"
_AFTER = "state IN ('queued', 'running', 'done', 'blocked', 'held', 'failed')"


def upgrade() -> None:
    """Let a run be held, and create the table of what has to be decided."""
    run_states.allow(_AFTER)
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
    run_states.allow(_BEFORE)
