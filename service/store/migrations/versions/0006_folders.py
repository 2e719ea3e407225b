"""A release may come from a folder, and what passes may be left in one; runs on small samples are marked."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the columns, and let a publication be in a folder, whose path may be long."""
    op.add_column("runs", sa.Column("folder", sa.Text(), nullable=True))
    op.add_column("runs", sa.Column("target", sa.Text(), nullable=True))
    op.add_column("runs", sa.Column("quick", sa.Boolean(), nullable=True))
    with op.batch_alter_table("publications") as batch:
        batch.alter_column("repo", existing_type=sa.String(200), type_=sa.Text(), existing_nullable=False)


def downgrade() -> None:
    """Publications in folders are nothing that an older version could tell of."""
    op.execute("DELETE FROM publications WHERE run_id IN (SELECT id FROM runs WHERE target IS NOT NULL)")
    with op.batch_alter_table("publications") as batch:
        batch.alter_column("repo", existing_type=sa.Text(), type_=sa.String(200), existing_nullable=False)
    for name in ("folder", "target", "quick"):
        op.drop_column("runs", name)
