"""A variant's figures rest on several samples, of text and of questions, and each may be extended by itself."""

from alembic import op

revision = "0004"
down_revision = "0003"

WRAPPED = {"sqlite": "json_array(json(samples))", "postgresql": "json_build_array(samples)"}
FIRST = {"sqlite": "json_extract(sample, '$[0]')", "postgresql": "sample -> 0"}


def upgrade() -> None:
    """Rename the column and make a list of what it holds."""
    op.alter_column("verdicts", "sample", new_column_name="samples")
    op.execute(f"UPDATE verdicts SET samples = {WRAPPED[op.get_bind().dialect.name]} WHERE samples IS NOT NULL")  # noqa: S608 (fixed text)


def downgrade() -> None:
    """Keep the first sample, which is the text's."""
    op.alter_column("verdicts", "samples", new_column_name="sample")
    op.execute(f"UPDATE verdicts SET sample = {FIRST[op.get_bind().dialect.name]} WHERE sample IS NOT NULL")  # noqa: S608 (fixed text)
