"""Runs can be cancelled, paused and put before others; tokens have scopes and an end; people sign in; a publication can be taken back."""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

_BEFORE = "state IN ('queued', 'running', 'done', 'blocked', 'held', 'superseded', 'failed')"
_AFTER = "state IN ('queued', 'running', 'paused', 'done', 'blocked', 'held', 'superseded', 'failed', 'cancelled')"
_EVERYTHING = '["admin"]'  # what tokens could do before they had scopes


def upgrade() -> None:
    """Add states, columns and tables."""
    _states(_AFTER)
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
    _states(_BEFORE)


def _states(condition: str) -> None:
    with _aside(), op.batch_alter_table("runs") as batch:
        batch.drop_constraint("state", type_="check")
        batch.create_check_constraint("state", condition)


@contextmanager
def _aside() -> Iterator[None]:
    """SQLite changes a constraint by copying the table and dropping the old one, which it refuses while other tables refer to it."""
    if op.get_bind().dialect.name != "sqlite":
        yield
        return
    referring = _referring("runs")
    for table in referring:
        op.execute(f"CREATE TEMPORARY TABLE {table}_aside AS SELECT * FROM {table}")  # noqa: S608
        op.execute(f"DELETE FROM {table}")  # noqa: S608
    yield
    for table in reversed(referring):
        op.execute(f"INSERT INTO {table} SELECT * FROM {table}_aside")  # noqa: S608
        op.execute(f"DROP TABLE {table}_aside")


def _referring(table: str) -> list[str]:
    """The tables that refer to this one, directly or not, each before what it refers to."""
    found = sa.inspect(op.get_bind())
    refers = {name: {key["referred_table"] for key in found.get_foreign_keys(name)} for name in found.get_table_names()}
    wanted, ordered = [table], list[str]()
    while wanted:
        parent = wanted.pop(0)
        for name in sorted(name for name, parents in refers.items() if parent in parents and name != parent):
            if name in ordered:
                ordered.remove(name)
            ordered.insert(0, name)
            wanted.append(name)
    return ordered
