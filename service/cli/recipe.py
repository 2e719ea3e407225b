"""`sluice recipe`: with which recipe a run was queued, and how two runs differ in that."""

from typing import Annotated

import typer

from service.cli.context import Terminal, explained, operations_of
from service.cli.options import AsJson, RunNumber, countable


def recipe(
    context: typer.Context,
    run_id: RunNumber,
    other: Annotated[
        int | None, typer.Argument(metavar="[OTHER]", callback=countable, help="Another run: show how its recipe and data differ, as a diff.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the recipe that a run was queued with, whatever has become of its file; it can be used again.

    Example: sluice recipe 12
    """
    from service.runs.recipe import differences

    terminal = Terminal.open(as_json=as_json)
    with explained():
        operations = operations_of(context)
        found = operations.recipe_of(run_id)
        if other is None:
            terminal.json(found.model_dump(mode="json")) if as_json else typer.echo(found.text, nl=False)
            return
        lines = differences(found, operations.recipe_of(other))
        if as_json:
            terminal.json({"run": run_id, "other": other, "same": not lines, "diff": lines})
        else:
            typer.echo("\n".join(lines) if lines else f"runs {run_id} and {other} have the same recipe and the same data")
