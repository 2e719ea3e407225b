"""A copy of the database while programs write to it: whole, consistent, and looked through before it takes its name."""

import os
import sqlite3
import subprocess
from contextlib import closing, suppress
from pathlib import Path

from sqlalchemy.engine import URL, make_url

from config.errors import ConfigurationError, StageError


def back_up(url: str, file: Path) -> int:
    """Copy the database at `url` to `file`, which must not be there yet; its bytes.

    Of SQLite it may be opened, or put in the database's place, as it is; of PostgreSQL it is for `pg_restore`. Killed or failing, no file of that name is
    there. Raises ConfigurationError when there is nothing to copy, `pg_dump` is not installed or `file` exists, StageError when it cannot be written or what
    was read is damaged.
    """
    parsed = make_url(url)
    on_server = parsed.get_backend_name() != "sqlite"
    source = Path(parsed.database or "")
    if not on_server and not source.is_file():
        raise ConfigurationError(f"There is no database at {source} yet, so there is nothing to back up. Check `home` and `database_url`.")
    if file.exists() or file.is_symlink():
        raise ConfigurationError(f"{file} exists already. Nothing was overwritten. Name another file, with the date in it for instance.")
    unfinished = file.with_name(f".{file.name}.unfinished")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished.unlink(missing_ok=True)
        if on_server:
            _dump(parsed, unfinished)
        else:
            _copy(source, unfinished)
        unfinished.replace(file)
    except (OSError, sqlite3.Error) as error:
        raise StageError(f"{file} cannot be written, or {source} not be read: {error}. No backup was made.") from error
    finally:
        with suppress(OSError):  # as where its folder is none; what went wrong is told already
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


def _dump(url: URL, target: Path) -> None:
    """Raises ConfigurationError without the server's own program for that, StageError when it fails."""
    server = URL.create("postgresql", url.username, None, url.host, url.port, url.database, url.query)
    environment = os.environ | ({} if url.password is None else {"PGPASSWORD": str(url.password)})  # its arguments everybody on the machine can read
    command = ["pg_dump", "--no-password", "--format=custom", f"--file={target}", f"--dbname={server.render_as_string()}"]
    try:
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ConfigurationError(f"The database is on a server ({server}), and its program for copies, `pg_dump`, is not here. Install it.") from error
    if done.returncode:
        raise StageError(f"The database {server} cannot be copied: {done.stderr.strip()} No backup was made.")
