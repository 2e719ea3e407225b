"""How Alembic runs our migrations: on the connection it is given, else (for `alembic revision`) on the database of the settings."""

from alembic import context
from sqlalchemy import Connection, create_engine

from service.store.tables import Base


def run(connection: Connection) -> None:
    """Apply the migrations inside the connection's transaction."""
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=connection.dialect.name == "sqlite", compare_type=True)
    with context.begin_transaction():
        context.run_migrations()


if (given := context.config.attributes.get("connection")) is not None:
    run(given)
else:
    from config.settings import load_settings

    with create_engine(load_settings().database).begin() as opened:
        run(opened)
