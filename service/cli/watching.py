"""`sluice watch`: what is watched."""

from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from service.cli.context import Terminal, explained, operations_of
from service.cli.options import AsJson
from service.cli.sheet import Column, Sheet, names

if TYPE_CHECKING:
    from service.release.listing import WatchEntry

app = typer.Typer(help="The watch list: what of the Hub is followed, and by which recipe.", no_args_is_help=True)


@app.command("list")
def listing(context: typer.Context, as_json: AsJson = False) -> None:
    """Show every entry of the watch list, those of the settings first, and how the last poll went. Times are UTC.

    Example: sluice watch list
    """
    terminal = Terminal.open(as_json=as_json)
    with explained():
        found = operations_of(context).watch_list()
    if as_json:
        terminal.json(found.model_dump(mode="json"))
        return
    if not found.entries:
        terminal.out.print("nothing is watched; `watch` in the settings, or the API, says what is to be")
        return
    table = Sheet(columns=[*names("entry", "recipe", "from"), Column(heading="state", prose=True)])
    for item in found.entries:
        label, recipe = ("?", "?") if item.entry is None else (item.entry.label, item.entry.recipe)
        table.add(escape(label), escape(recipe), _source(item), "sound" if item.error is None else f"[red]{escape(item.error)}[/]")
    terminal.out.print(table)
    for owner in found.listings:
        how = f"{owner.repos} repos" if owner.error is None else f"[yellow]not listed:[/] {escape(owner.error)}"
        terminal.out.print(f"[bold]{escape(owner.owner)}[/] at {owner.at:%Y-%m-%d %H:%M}: {how}", soft_wrap=True)


def _source(item: "WatchEntry") -> str:
    return "settings" if item.id is None else f"{item.id}, by {escape(item.by or '')}"
