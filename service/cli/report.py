"""`sluice report`: the page that tells everything about a run."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from config.errors import ConfigurationError
from service.cli.context import Terminal, explained, settings_of
from service.cli.options import AsJson, RunNumber


def report(
    context: typer.Context,
    run_id: RunNumber,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Copy the page there, instead of saying where it is.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say where the report of a run is: one HTML file with every gate, the figures behind it, and plots.

    Example: sluice report 12 --output report.html
    """
    from service.runs.report import find
    from service.store import open_store

    terminal = Terminal.open(as_json=as_json)
    with explained():
        settings = settings_of(context)
        path = find(open_store(settings.database), settings, run_id)
        if output is not None:
            try:
                path = Path(shutil.copyfile(path, output.expanduser()))
            except OSError as error:
                raise ConfigurationError(f"The report cannot be written to {output}: {error.strerror}. Name a file in a folder that is there.") from error
    if as_json:
        terminal.json({"run": run_id, "report": str(path)})
    else:
        terminal.out.print(str(path), markup=False, soft_wrap=True)
