"""Runs can be cancelled, paused and put before others; tokens have scopes and an end; people sign in; a publication can be taken back."""

import sqlalchemy as sa
from alembic import op

from service.store import run_states

revision = "0013"
down_revision = "0012"

_BEFORE = "state IN ('queued', 'running', 'done', 'blocked', 'held', 'superseded', 'failed')"
_AFTER = "state IN ('queued', 'running', 'paused', 'done', 'blocked', 'held', 'superseded', 'failed', 'cancelled')"
_EVERYTHING = '["admin"]'  # what tokens could do before they had scopes


def upgrade() -> None:
    """Add states, columns and tables."""
    run_states.allow(_AFTER)
    op.add_column("runs", sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("runs", sa.Column("wanted", sa.String(16), nullable=True))
    op.add_column("publications", sa.Column("unpublished", sa.JSON(), nullable=True))
    op.add_column("api_tokens", sa.Column("scopes", sa.JSON(), nullable=False, server_default=_EVERYTHING))
    op.add_column("api_tokens", sa.Column("namespaces", sa.JSON(), nullable=True))
    op.add_column("api_tokens", sa.Column("expires", sa.DateTime(timezone=True), nullable=True))
    op.add_column("api_tokens", sa.Column("used", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "sessions",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("token_id", sa.Integer(), sa.ForeignKey("api_tokens.id"), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("digest"),
    )
    op.create_table(
        "answers",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("caller", sa.String(64), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("request", sa.String(64), nullable=False),
        sa.Column("begun", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("location", sa.Text(), nullable=True),
        sa.Column("body", sa.Text(), nullable=True),
        sa.UniqueConstraint("caller", "key"),
    )


def downgrade() -> None:
    """An older version knows a paused run as one that waits and a cancelled one as one that failed; its tokens may do everything, so those that may not end."""
    op.drop_table("answers")
    op.drop_table("sessions")
    op.execute("UPDATE api_tokens SET revoked = CURRENT_TIMESTAMP WHERE revoked IS NULL AND (CAST(scopes AS TEXT) <> '[\"admin\"]' OR expires IS NOT NULL)")
    for column in ("used", "expires", "namespaces", "scopes"):
        op.drop_column("api_tokens", column)
    op.drop_column("publications", "unpublished")
    op.drop_column("runs", "wanted")
    op.drop_column("runs", "priority")
    op.execute("UPDATE runs SET state = 'queued' WHERE state = 'paused'")
    op.execute("UPDATE runs SET state = 'failed', error = 'The run was cancelled.' WHERE state = 'cancelled'")
    run_states.allow(_BEFORE)
