"""What was sent to the places that are told how runs end, and how far each of them has been told."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Create the tables."""
    when = sa.DateTime(timezone=True)
    op.create_table(
        "told_places",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("name", sa.String(40), nullable=False, unique=True),
        sa.Column("event", sa.Integer(), nullable=False),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("place", sa.String(40), nullable=False),
        sa.Column("event", sa.Integer(), nullable=False),
        sa.Column("subject", sa.String(250), nullable=False),
        sa.Column("ending", sa.String(16), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created", when, nullable=False),
        sa.Column("due", when, nullable=False),
        sa.UniqueConstraint("place", "event"),
        sa.CheckConstraint("state IN ('pending', 'delivered', 'given_up')", name="state"),
    )
    op.create_index("ix_deliveries_state_due", "deliveries", ["state", "due"])


def downgrade() -> None:
    """Drop them."""
    op.drop_table("deliveries")
    op.drop_table("told_places")
