"""A copy of the database while programs write to it: whole, consistent, and looked through before it takes its name."""

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy.engine import make_url

from config.errors import ConfigurationError, StageError


def back_up(url: str, file: Path) -> int:
    """Copy the SQLite database at `url` to `file`, which must not be there yet; its bytes. It may be opened, or put in the database's place, as it is.

    Killed or failing, no file of that name is there. Raises ConfigurationError when there is nothing to copy or `file` exists, StageError when it cannot be
    written or what was read is damaged.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        name = parsed.set(drivername=parsed.get_backend_name()).render_as_string(hide_password=True)
        raise ConfigurationError(f"The database is on a server, which has a tool of its own for this. Use `pg_dump --format=custom --file={file} {name}`.")
    source = Path(parsed.database or "")
    if not source.is_file():
        raise ConfigurationError(f"There is no database at {source} yet, so there is nothing to back up. Check `home` and `database_url`.")
    if file.exists() or file.is_symlink():
        raise ConfigurationError(f"{file} exists already. Nothing was overwritten. Name another file, with the date in it for instance.")
    unfinished = file.with_name(f".{file.name}.unfinished")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished.unlink(missing_ok=True)
        _copy(source, unfinished)
        unfinished.replace(file)
    except (OSError, sqlite3.Error) as error:
        raise StageError(f"{file} cannot be written, or {source} not be read: {error}. No backup was made.") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return file.stat().st_size


def _copy(source: Path, target: Path) -> None:
    """Raises StageError when the copy is damaged, and so is what it was made of."""
    with closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as read, closing(sqlite3.connect(target)) as written:
        read.backup(written)
        written.execute("PRAGMA journal_mode = DELETE")  # the whole database in one file
        found = [line for (line,) in written.execute("PRAGMA integrity_check").fetchall()]
    if found != ["ok"]:
        raise StageError(f"The database {source} is damaged: {'; '.join(found[:3])}. No backup was made; put the last one in its place.")
