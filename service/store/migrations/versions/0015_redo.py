"""A run can be queued again with stages that are to be done anew."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Add the column."""
    op.add_column("runs", sa.Column("redo", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("runs", "redo")
