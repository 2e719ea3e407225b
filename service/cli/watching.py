"""`sluice watch`: what is watched, and entries beside those of the settings."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from service.cli.context import Terminal, explained, operations_of
from service.cli.options import AsJson, countable, spread
from service.cli.sheet import Column, Sheet, names

if TYPE_CHECKING:
    from config.watch import Watched
    from service.release.listing import WatchEntry

Entry = Annotated[
    int, typer.Argument(callback=countable, help="Number of an entry, as `sluice watch list` shows it; those of the settings only their file changes.")
]

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
        terminal.out.print("nothing is watched; `watch` in the settings, or `sluice watch add`, says what is to be")
        return
    table = Sheet(columns=[*names("entry", "recipe", "from"), Column(heading="state", prose=True)])
    for item in found.entries:
        label, recipe = ("?", "?") if item.entry is None else (item.entry.label, item.entry.recipe)
        table.add(escape(label), escape(recipe), _source(item), "sound" if item.error is None else f"[red]{escape(item.error)}[/]")
    terminal.out.print(table)
    for owner in found.listings:
        how = f"{owner.repos} repos" if owner.error is None else f"[yellow]not listed:[/] {escape(owner.error)}"
        terminal.out.print(f"[bold]{escape(owner.owner)}[/] at {owner.at:%Y-%m-%d %H:%M} UTC: {how}", soft_wrap=True)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked of repos of an entry, and what is done with them; as `watch` in the settings has it, where the keys are explained."""

    names: Annotated[list[str] | None, typer.Option(help="Of owners only repos whose name is like this: `Qwen3-*`. Repeatable, as all of this kind.")] = None
    exclude: Annotated[list[str] | None, typer.Option(help="Never repos whose name, or owner/name, is like this: `*-GGUF`.")] = None
    tags: Annotated[list[str] | None, typer.Option(help="Only repos that have all of these tags on the Hub.")] = None
    licenses: Annotated[list[str] | None, typer.Option(help="Only repos under one of these licences, as the Hub writes them.")] = None
    minimum_downloads: Annotated[int | None, typer.Option(help="Only repos that were downloaded so often in the last 30 days.")] = None
    private: Annotated[str | None, typer.Option(help="`follow` or `skip` private repos; default: follow those that are named.")] = None
    gated: Annotated[str | None, typer.Option(help="The same of gated repos.")] = None
    cool_down_minutes: Annotated[float | None, typer.Option(help="Leave a repo alone until its last commit is so old.")] = None
    revision: Annotated[str | None, typer.Option(help="Branch to follow; default: main.")] = None
    recipe: Annotated[str | None, typer.Option(help="Name of a recipe; left out: `default`.")] = None

    def entry(self, followed: list[str]) -> "Watched":
        """The entry that follows these. Raises ConfigurationError."""
        from pydantic import ValidationError

        from config.errors import ConfigurationError
        from config.files import dotted, explain
        from config.watch import Watched

        given: dict[str, Any] = {name: value for name, value in vars(self).items() if value is not None}
        if url := next((item for item in followed if "://" in item), None):
            raise ConfigurationError(f"{url} is a URL: give a repo as owner/name, or an owner.")
        kinds = {"repos": [item for item in followed if "/" in item], "owners": [item for item in followed if "/" not in item]}
        try:
            return Watched.model_validate(kinds | given)
        except ValidationError as error:
            raise ConfigurationError(f"That cannot be watched: {explain(error, Watched, named=lambda where: dotted(where) if where else 'entry')}.") from error


@app.command("add")
@spread
def add(
    context: typer.Context,
    followed: Annotated[list[str], typer.Argument(metavar="REPO|OWNER...", help="Repos as owner/name, or owners of whom every repo is followed.")],
    asked: Asked,
    as_json: AsJson = False,
) -> None:
    """Watch more, from the next poll on. Settings stay as they are; the entry is kept in the database.

    Example: sluice watch add Qwen --names "Qwen3-*" --exclude "*-GGUF" --recipe default
    """
    terminal = Terminal.open(as_json=as_json)
    with explained():
        made = operations_of(context).add_watch(asked.entry(followed))
    if as_json:
        terminal.json(made.model_dump(mode="json"))
    elif made.entry is not None:
        terminal.out.print(f"entry {made.id} follows {escape(made.entry.label)} by the recipe {escape(made.entry.recipe)}", soft_wrap=True)


@app.command("change")
@spread
def change(
    context: typer.Context,
    entry: Entry,
    followed: Annotated[list[str], typer.Argument(metavar="REPO|OWNER...", help="As of `sluice watch add`.")],
    asked: Asked,
    as_json: AsJson = False,
) -> None:
    """Let an entry follow this and nothing else, from the next poll on: what is not given here is as by default, whatever it was before.

    Example: sluice watch change 3 Qwen --names "Qwen4-*" --recipe default
    """
    terminal = Terminal.open(as_json=as_json)
    with explained():
        made = operations_of(context).change_watch(entry, asked.entry(followed))
    if as_json:
        terminal.json(made.model_dump(mode="json"))
    elif made.entry is not None:
        terminal.out.print(f"entry {made.id} now follows {escape(made.entry.label)} by the recipe {escape(made.entry.recipe)}", soft_wrap=True)


@app.command("remove")
def remove(
    context: typer.Context,
    entry: Entry,
    as_json: AsJson = False,
) -> None:
    """Watch an entry no more. Runs that it led to stay.

    Example: sluice watch remove 3
    """
    terminal = Terminal.open(as_json=as_json)
    with explained():
        operations_of(context).remove_watch(entry)
    if as_json:
        terminal.json({"entry": entry, "removed": True})
    else:
        terminal.out.print(f"entry {entry} is watched no more")


def _source(item: "WatchEntry") -> str:
    return "settings" if item.id is None else f"{item.id}, by {escape(item.by or '')}"
