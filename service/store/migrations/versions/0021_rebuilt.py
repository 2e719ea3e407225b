"""A hint to rebuild remembers for which entries of the watch list that is done."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    """Add the column."""
    op.add_column("hints", sa.Column("rebuilt", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("hints", "rebuilt")
