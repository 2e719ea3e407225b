"""Connections: SQLite or PostgreSQL behind one URL, brought to the newest schema when opened, with read and write transactions."""

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import URL, ColumnElement, Connection, Engine, ExceptionContext, create_engine, event, inspect, make_url, or_, text
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import InstrumentedAttribute, Session

from config.errors import ConfigurationError, SluiceError
from config.passing import DAY

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy.dialects import postgresql, sqlite

    from service.store.tables import Base

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_TIMEOUT = 30_000  # milliseconds that SQLite waits for another process's write
LONGEST_WAIT = timedelta(seconds=DAY, minutes=1)  # that anything is put off: a pause is a day at most, and what chance adds
OPENING = 600_000  # milliseconds that whoever opens PostgreSQL waits for another process that migrates, which itself takes as long as it takes
PATIENCE = {  # of PostgreSQL's client: seconds, but for the milliseconds that what was sent may stay without acknowledgement, and those of statements and locks
    "connect_timeout": 10,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "options": "-c statement_timeout=120000 -c lock_timeout=15000",
}
_BUSY = {5, 6}  # SQLITE_BUSY, SQLITE_LOCKED
_GONE = {10, 13, 14}  # SQLITE_IOERR, SQLITE_FULL, SQLITE_CANTOPEN
_PRIMARY = 0xFF  # of a code of SQLite, without what it adds to tell cases apart
MIGRATION_LOCK = 0x5C1_0CE  # an arbitrary number that all our processes agree on


class StoreError(SluiceError):
    """The database refused something that the program asked of it."""


def passes(error: Exception) -> bool:
    """Whether the database is only busy, locked or away at the moment; not so where it refuses what it was asked for."""
    if isinstance(error, PoolTimeout):
        return True
    if not isinstance(error, OperationalError):
        return False
    code = getattr(error.orig, "sqlite_errorcode", None)
    return code & _PRIMARY in _BUSY if isinstance(code, int) else type(error.orig).__module__.startswith("psycopg")


def is_away(error: Exception) -> bool:
    """Whether the database could not be asked, or not to the end: it is busy, cut off, full or not there, and no fault of what was asked.

    What is none of the database's errors says nothing of it.
    """
    if passes(error) or (isinstance(error, DBAPIError) and error.connection_invalidated):
        return True
    if not isinstance(error, OperationalError):
        return False
    code = getattr(error.orig, "sqlite_errorcode", 0)
    return code & _PRIMARY in _GONE or str(error.orig).startswith("no such table")  # SQLite makes the file anew that somebody took away


def now() -> datetime:
    """The time, aware and in UTC."""
    return datetime.now(UTC)


def is_due(at: "InstrumentedAttribute[datetime] | InstrumentedAttribute[datetime | None]") -> ColumnElement[bool]:
    """Whether something is to be done by now. Nothing is put off for longer than a day: what seems to be was put off by a clock that was ahead."""
    return or_(at <= now(), at > now() + LONGEST_WAIT)


def due_at(at: datetime) -> datetime:
    """When something is done that is put off until then: now, where a clock that was ahead put it off."""
    return at if at <= (moment := now()) + LONGEST_WAIT else moment


class Database:
    """An open database whose schema is the newest."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = engine.execution_options(sluice_write=True)
        self._hasty = engine.execution_options(sluice_write=True, sluice_hasty=True)
        self._answers_since = time.monotonic()
        self._inside: Session | None = None
        self._condition: Callable[[Session], None] | None = None  # what the next write begins with
        event.listen(engine, "handle_error", self._heard)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that only reads; on SQLite it never waits for a writer."""
        if self._inside is not None:
            yield self._inside
            return
        with Session(self._engine) as session:
            yield session

    @contextmanager
    def write(self, *, hasty: bool = False) -> Iterator[Session]:
        """A transaction that is committed at the end, or rolled back on an exception; on SQLite there is one at a time.

        A `hasty` one does not wait for the disk, which takes long while a stage writes much: a power cut may undo it, the end of this process never.
        """
        with Session(self._hasty if hasty else self._writer) as session, session.begin():
            if hasty and session.get_bind().dialect.name == "postgresql":
                session.execute(text("SET LOCAL synchronous_commit = off"))
            if (condition := self._condition) is not None:
                self._condition = None
                condition(session)
            yield session

    def inside(self, session: Session) -> Self:
        """The same database as a transaction at hand sees it: what is read is read in that."""
        found = copy.copy(self)
        found._inside = session
        return found

    def _heard(self, context: ExceptionContext) -> None:
        error = context.sqlalchemy_exception
        if error is not None and is_away(error):
            self._answers_since = time.monotonic()

    def steady(self) -> float:
        """Seconds for which the database has answered this process whatever it asked: nobody can have missed it for that long who asks as often."""
        return time.monotonic() - self._answers_since

    def healthy(self) -> bool:
        """Whether the database answers, and is ours."""
        try:
            with self._engine.connect() as connection:
                connection.execute(text("SELECT version_num FROM alembic_version"))
        except SQLAlchemyError:  # no connection is free, too
            return False
        return True

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()


def upserting(session: Session, table: type["Base"]) -> "sqlite.Insert | postgresql.Insert":
    """An insertion that can say what becomes of rows that are there, as the session's database has it; the other dialect is not imported."""
    if session.get_bind().dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as into_postgresql

        return into_postgresql(table)
    from sqlalchemy.dialects.sqlite import insert as into_sqlite

    return into_sqlite(table)


def connect(url: str) -> Engine:
    """An engine for `url`, its schema brought to the newest under a lock, so that several processes may start at once.

    Raises ConfigurationError when the URL is wrong, the database cannot be reached, or a newer Sluice has written it.
    """
    parsed = _parse(url)
    shown = parsed.render_as_string(hide_password=True)
    engine = create_engine(parsed, **({} if parsed.get_backend_name() == "sqlite" else _over_the_network(parsed)))
    try:
        if parsed.get_backend_name() == "sqlite":
            _prepare_sqlite(engine, Path(parsed.database or ""))
        with engine.execution_options(sluice_write=True).begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text(f"SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = {OPENING}"))
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            if revision(connection) != newest_revision():
                migrate(connection)
    except (OperationalError, OSError) as error:
        engine.dispose()
        cause = str(error.orig if isinstance(error, OperationalError) else error).strip()
        raise ConfigurationError(f"The database {shown} cannot be opened: {cause}. Check `database_url`, and that it is there.") from error
    except ConfigurationError:
        engine.dispose()
        raise
    return engine


def revision(connection: Connection) -> str | None:
    """What the schema was last brought to; None of a database that holds nothing of ours."""
    return connection.scalar(text("SELECT version_num FROM alembic_version")) if inspect(connection).has_table("alembic_version") else None


def newest_revision() -> str:
    """What the schema is to be brought to. Alembic would say so too, but takes longer to import than to find that there is nothing to do."""
    return max(path.name for path in (MIGRATIONS / "versions").glob("[0-9]*.py")).partition("_")[0]


def migrate(connection: Connection) -> None:
    """Bring the schema to the newest inside the connection's transaction: all of it or nothing. Raises ConfigurationError when it is newer still."""
    import alembic.command
    from alembic.util import CommandError

    try:
        alembic.command.upgrade(alembic_config(connection), "head")
    except CommandError as error:
        shown = connection.engine.url.render_as_string(hide_password=True)
        raise ConfigurationError(f"The schema of the database {shown} is newer than this program ({error}). Use a newer Sluice.") from error


def alembic_config(connection: Connection) -> "Config":
    """Alembic's configuration for our migrations on an open connection."""
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
        parsed.get_dialect()
    except (ArgumentError, ImportError) as error:
        raise ConfigurationError(f"`database_url` is not usable: {error}. Use sqlite:////absolute/path.db or postgresql+psycopg://user@host/name.") from error
    if parsed.get_backend_name() not in {"sqlite", "postgresql"}:
        raise ConfigurationError(f"`database_url` names {parsed.get_backend_name()}. Only SQLite and PostgreSQL are supported.")
    if parsed.get_backend_name() == "sqlite" and (not parsed.database or parsed.database == ":memory:" or "mode" in parsed.query):
        raise ConfigurationError("`database_url` names a SQLite database in memory, which threads and processes cannot share. Name a file.")
    return parsed


def _over_the_network(parsed: URL) -> dict[str, Any]:
    """Options of an engine whose server may go away without a word: nobody waits for ever for it. What the URL says itself is left as it is."""
    return {"pool_pre_ping": True, "connect_args": {name: value for name, value in PATIENCE.items() if name not in parsed.query}}


def _prepare_sqlite(engine: Engine, file: Path) -> None:
    """Create the folder, set what each connection needs, and switch the file to write-ahead logging."""
    file.parent.mkdir(parents=True, exist_ok=True)

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin transactions by itself, `begin` below does
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT}")
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        if options.get("sluice_write"):
            connection.exec_driver_sql(f"PRAGMA synchronous = {'NORMAL' if options.get('sluice_hasty') else 'FULL'}")
        # A writer locks at once: a lock taken at its first write would fail, without waiting, when another wrote since its first read.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("sluice_write") else "BEGIN")

    driver = engine.raw_connection()
    try:
        _write_ahead(driver)
    finally:
        driver.close()


def _write_ahead(driver: Any) -> None:
    """Set WAL mode, which the file remembers. SQLite does not wait for its lock here, so this does."""
    import sqlite3

    deadline = time.monotonic() + BUSY_TIMEOUT / 1000
    while True:
        try:
            driver.cursor().execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise OperationalError("PRAGMA journal_mode = WAL", None, error) from error
            if time.monotonic() > deadline:
                raise OperationalError("PRAGMA journal_mode = WAL", None, error) from error
            time.sleep(0.05)
