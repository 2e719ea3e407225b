"""Stages tell how far they have come and how long they are expected to take; one that nobody ended is interrupted."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0005"
down_revision = "0004"

BEFORE = ("running", "done", "failed", "reused")
AFTER = (*BEFORE, "interrupted")
COLUMNS: tuple[tuple[str, TypeEngine[Any]], ...] = (
    ("stage", sa.String(200)),
    ("estimate", sa.Double()),
    ("done", sa.BigInteger()),
    ("total", sa.BigInteger()),
    ("unit", sa.String(32)),
    ("reported", sa.DateTime(timezone=True)),
    ("phase_done", sa.BigInteger()),
    ("phase_began", sa.DateTime(timezone=True)),
)


def upgrade() -> None:
    """Add the columns and let a stage be interrupted, which those are that say running in a run that ended."""
    op.add_column("runs", sa.Column("forecast", sa.JSON(), nullable=True))
    for name, kind in COLUMNS:
        op.add_column("stages", sa.Column(name, kind, nullable=True))
    _allow(AFTER)
    op.execute("UPDATE stages SET state = 'interrupted' WHERE state = 'running' AND run_id IN (SELECT id FROM runs WHERE state <> 'running')")


def downgrade() -> None:
    """What was interrupted failed, as far as an older version can tell."""
    op.execute("UPDATE stages SET state = 'failed', error = 'interrupted' WHERE state = 'interrupted'")
    _allow(BEFORE)
    for name, _ in COLUMNS:
        op.drop_column("stages", name)
    op.drop_column("runs", "forecast")


def _allow(states: tuple[str, ...]) -> None:
    with _artifacts_aside(), op.batch_alter_table("stages") as batch:
        batch.drop_constraint("state", type_="check")
        batch.create_check_constraint("state", f"state IN ({', '.join(repr(state) for state in states)})")


@contextmanager
def _artifacts_aside() -> Iterator[None]:
    """SQLite changes a constraint by copying the table and dropping the old one, which it refuses while artifacts refer to it."""
    if op.get_bind().dialect.name != "sqlite":
        yield
        return
    op.execute("CREATE TEMPORARY TABLE artifacts_aside AS SELECT * FROM artifacts")
    op.execute("DELETE FROM artifacts")
    yield
    op.execute("INSERT INTO artifacts SELECT * FROM artifacts_aside")
    op.execute("DROP TABLE artifacts_aside")
