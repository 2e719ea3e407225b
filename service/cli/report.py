"""`sluice report`: the page that tells everything about a run."""

from pathlib import Path
from typing import Annotated

import typer

from config.errors import ConfigurationError
from service.cli.context import Terminal, explained, operations_of
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
    terminal = Terminal.open(as_json=as_json)
    with explained():
        operations = operations_of(context)
        place = operations.report_place(operations.run(run_id))
        if place is None or output is not None:
            page = operations.report(run_id)  # says why there is none
            place = str(place if output is None else _written(page, output))
    if as_json:
        terminal.json({"run": run_id, "report": place})
    else:
        terminal.out.print(place, markup=False, soft_wrap=True)


def _written(page: bytes, output: Path) -> Path:
    path = output.expanduser()
    try:
        path.write_bytes(page)
    except OSError as error:
        raise ConfigurationError(f"The report cannot be written to {output}: {error.strerror}. Name a file in a folder that is there.") from error
    return path
