"""Runs that wait for a Hub, and what is still to do for runs that are done."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the columns and the table."""
    op.add_column("runs", sa.Column("due", sa.DateTime(timezone=True), nullable=True))
    op.add_column("runs", sa.Column("waits", sa.Integer(), nullable=False, server_default="0"))
    op.create_table(
        "follow_ups",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("run_id", sa.Integer(), sa.ForeignKey("runs.id"), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("due", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("run_id", "kind"),
    )


def downgrade() -> None:
    """An older version takes a waiting run from the queue at once."""
    op.drop_table("follow_ups")
    for name in ("due", "waits"):
        op.drop_column("runs", name)
