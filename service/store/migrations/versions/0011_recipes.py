"""Recipes are kept with their runs, and the outputs of stages are found by their keys: to say which of them may go."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Create the table of recipes, and the index."""
    op.create_table(
        "recipes",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.Column("sources", sa.JSON(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_stages_key", "stages", ["key"])


def downgrade() -> None:
    """Drop both: runs of an older version read their recipes' files again."""
    op.drop_index("ix_stages_key", "stages")
    op.drop_table("recipes")
