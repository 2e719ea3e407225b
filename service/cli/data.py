"""`sluice data`: what a recipe is calibrated and measured on, and how it comes onto this machine."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from config.data import Reference
from config.errors import HubError, SluiceError
from service.cli.context import Terminal, explained, operations_of, settings_of
from service.cli.options import AsJson
from service.cli.sheet import Sheet, figures, names

if TYPE_CHECKING:
    from service.release.inventory import DataView

app = typer.Typer(help="The texts and questions that a recipe names: what they are, and fetching those that are on the Hub.", no_args_is_help=True)

Recipe = Annotated[str, typer.Option(help="Recipe: a name from config/recipes, or the path of a .yaml file.")]


@app.command("list")
def listing(context: typer.Context, recipe: Recipe = "default", as_json: AsJson = False) -> None:
    """Show what a recipe is calibrated and measured on: commit, size, licence, and whether it is on this machine.

    Example: sluice data list --recipe reference
    """
    terminal = Terminal.open(as_json=as_json)
    with explained():
        rows = operations_of(context).data(recipe)
    _print(terminal, recipe, rows)


@app.command("fetch")
def fetch(context: typer.Context, recipe: Recipe = "default", as_json: AsJson = False) -> None:
    """Fetch what a recipe names on the Hub, and what its branches and tags are now. A run then asks no Hub for it.

    For a machine without a network, fetch on another one and copy the folder `data` under the settings' `home`.

    Example: sluice data fetch --recipe reference
    """
    from config.written import named_data
    from service.cli.display import progress
    from service.hubclient import connect
    from service.release import datasets
    from service.release.inventory import inventory

    terminal = Terminal.open(as_json=as_json)
    with explained():
        settings = settings_of(context)
        api, named, failed = connect(settings), named_data(recipe), list[SluiceError]()
        with progress(terminal.progress, line_seconds=settings.progress_seconds) as listener:
            for data in named:
                try:
                    if isinstance(data, Reference):
                        datasets.fetch(settings, api, data, listener)
                except SluiceError as error:  # the others are fetched all the same
                    failed.append(error)
        if failed:
            raise failed[0] if len(failed) == 1 else HubError(" ".join(str(error) for error in failed))
        rows = inventory(settings, api, named)
    _print(terminal, recipe, rows)


def _print(terminal: Terminal, recipe: str, rows: "Sequence[DataView]") -> None:
    if terminal.as_json:
        terminal.json({"recipe": recipe, "data": [row.model_dump() for row in rows]})
        return
    from rich.markup import escape

    if not rows:
        terminal.out.print(f"The recipe {escape(recipe)} names no data: it needs none but the model.", soft_wrap=True)
        return
    terminal.out.print(_table(rows))
    for remark in dict.fromkeys(row.remark for row in rows if row.remark):
        concerned = [row.data for row in rows if row.remark == remark]
        who = f"all {len(rows)}" if len(concerned) == len(rows) > 1 else ", ".join(concerned)
        terminal.out.print(f"[yellow]not known[/] of {escape(who)}: {escape(remark)}", soft_wrap=True)
    if any(row.state == "not fetched" for row in rows):
        terminal.out.print(f"[bold]sluice data fetch --recipe {escape(recipe)}[/] fetches what is not here; a run would do it too.", soft_wrap=True)


def _table(rows: "Sequence[DataView]") -> Sheet:
    """Each text in a line of its own, its facts below, so that 80 columns do for the longest reference."""
    from rich.markup import escape

    table = Sheet(columns=[*names("data", ""), *figures("size"), *names("here")])
    for row in rows:
        table.add(escape("\n".join((row.data, *_facts(row)))), row.form, _size(row.bytes), {"here": "yes", "missing": "missing"}.get(row.state, "no"))
    return table


def _facts(row: "DataView") -> Iterator[str]:
    if row.commit is not None and row.commit not in row.data:
        yield f"  commit {row.commit}"
    if row.license is not None:
        yield f"  licence {', '.join(row.license) or 'not stated'}"


def _size(count: int | None) -> str:
    from service.amounts import byte_count

    return "" if count is None else byte_count(count)
