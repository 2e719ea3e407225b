"""What a variant's figures rest on, so that the next release can be compared with it."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column; it stays empty in what was recorded before."""
    op.add_column("verdicts", sa.Column("sample", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("verdicts", "sample")
