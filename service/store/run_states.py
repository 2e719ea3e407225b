"""What migrations share that let runs be in other states: the check on a column that other tables' rows hang on."""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from alembic import op


def allow(condition: str) -> None:
    """Put this check in the place of the one on the states of runs."""
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
