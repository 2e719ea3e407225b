"""Fixes that are offered to the upstream as a pull request."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Let a run be asked for one, and create the table of those that were made."""
    op.add_column("runs", sa.Column("fixes_as_pr", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_table(
        "pull_requests",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("run_id", sa.Integer(), sa.ForeignKey("runs.id"), nullable=False),
        sa.Column("repo", sa.String(200), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("files", sa.JSON(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("state IN ('opened', 'open', 'merged', 'closed')", name="state"),
        sa.UniqueConstraint("run_id"),
    )


def downgrade() -> None:
    """Drop both."""
    op.drop_table("pull_requests")
    op.drop_column("runs", "fixes_as_pr")
