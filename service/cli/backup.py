"""`sluice backup`: a copy of what cannot be made again."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli.context import Terminal, explained, settings_of
from service.cli.options import AsJson


def backup(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="Where to; it must not be there yet.")],
    as_json: AsJson = False,
) -> None:
    """Copy the database of runs, verdicts, waivers, approvals and publications to one file, also while a service works.

    Everything else under `home` is made or fetched again when it is needed. To restore, put the file in the place of `sluice.db` while no service runs, or
    give it to `pg_restore` where the database is on a server: docs/operating.md has the commands.

    Example: sluice backup backups/sluice-today.db
    """
    from service.store.backup import back_up

    terminal = Terminal.open(as_json=as_json)
    with explained():
        size = back_up(settings_of(context).database, file)
    if as_json:
        terminal.json({"file": str(file), "bytes": size})
    else:
        terminal.out.print(f"{file}: {size / 1e6:.1f} MB, whole", markup=False, soft_wrap=True)
