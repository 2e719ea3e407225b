"""A watch list over the network, what was found at each look, hints that ask for a rebuild."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Create the tables, and let a hint ask for a rebuild."""
    when = sa.DateTime(timezone=True)
    op.create_table(
        "watch_entries",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("entry", sa.JSON(), nullable=False),
        sa.Column("by", sa.String(100), nullable=False),
        sa.Column("created", when, nullable=False),
    )
    op.create_table(
        "looks",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("repo", sa.String(200), nullable=False),
        sa.Column("revision", sa.String(200), nullable=False),
        sa.Column("asked", sa.String(64), nullable=False),
        sa.Column("sha", sa.String(64), nullable=False),
        sa.Column("at", when, nullable=False),
        sa.UniqueConstraint("repo", "revision", "asked"),
    )
    op.create_table(
        "listings",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("owner", sa.String(100), nullable=False, unique=True),
        sa.Column("repos", sa.Integer(), nullable=False),
        sa.Column("at", when, nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
    )
    op.create_table(
        "used_requests",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False, unique=True),
        sa.Column("at", when, nullable=False),
    )
    op.create_index("ix_used_requests_at", "used_requests", ["at"])
    with op.batch_alter_table("hints") as batch:
        batch.add_column(sa.Column("rebuild", sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    """Drop them."""
    with op.batch_alter_table("hints") as batch:
        batch.drop_column("rebuild")
    for table in ("used_requests", "listings", "looks", "watch_entries"):
        op.drop_table(table)
