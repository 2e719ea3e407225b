"""`sluice recipes`: the recipes that are known by name, whether a file is one, and what a changed one would build anew."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from config.errors import ConfigurationError
from service.cli.context import Exit, Terminal, explained, operations_of
from service.cli.options import AsJson, RunNumber
from service.cli.sheet import Column, Sheet, names

app = typer.Typer(help="Recipes apart from any run: which there are, whether a file is one, and what a changed one would build anew.", no_args_is_help=True)


@app.command("list")
def listing(context: typer.Context, as_json: AsJson = False) -> None:
    """List the recipes that are known by name, and what each builds.

    Example: sluice recipes list
    """
    terminal = Terminal.open(as_json=as_json)
    with explained():
        found = operations_of(context).recipes()
    if as_json:
        terminal.json([item.model_dump(mode="json") for item in found])
        return
    table = Sheet(columns=[*names("recipe"), Column(heading="builds", prose=True)])
    for item in found:
        table.add(escape(item.name), escape(", ".join(item.variants)) if item.error is None else f"[red]{escape(item.error)}[/]")
    terminal.out.print(table)


@app.command("show")
def show(
    context: typer.Context, name: Annotated[str, typer.Argument(help="Name of a recipe, as `sluice recipes list` shows it.")], as_json: AsJson = False
) -> None:
    """Print a recipe as it is written; with --json also all that it comes to.

    Example: sluice recipes show default
    """
    terminal = Terminal.open(as_json=as_json)
    with explained():
        found = operations_of(context).recipe(name)
    terminal.json(found.model_dump(mode="json")) if as_json else typer.echo(found.text, nl=False)


@app.command("check")
def check(context: typer.Context, file: Annotated[Path, typer.Argument(help="A .yaml file.")], as_json: AsJson = False) -> None:
    """Say what is wrong with a recipe, each fault with its place. Whether its data are there is not looked at. The exit code is 1 when anything is wrong.

    Example: sluice recipes check my-recipe.yaml
    """
    terminal = Terminal.open(as_json=as_json)
    with explained():
        found = operations_of(context).check(_read(file))
    if as_json:
        terminal.json(found.model_dump(mode="json"))
    elif found.valid:
        terminal.out.print(f"{escape(str(file))} is a recipe", soft_wrap=True)
    for item in () if as_json else found.errors:
        terminal.out.print(f"[red]{escape(item.place)}[/]: {escape(item.message)}", soft_wrap=True)
    raise typer.Exit(Exit.DONE if found.valid else Exit.FAILED)


@app.command("preview")
def preview(
    context: typer.Context,
    run_id: RunNumber,
    recipe: Annotated[str, typer.Argument(help="Name of a recipe, or the path of a .yaml file.")],
    as_json: AsJson = False,
) -> None:
    """Say which stages a recipe has for the release of a run, and which of them would be done anew. Nothing is made.

    Example: sluice recipes preview 12 my-recipe.yaml
    """
    terminal = Terminal.open(as_json=as_json)
    with explained():
        path = Path(recipe)
        named = path.suffix not in {".yaml", ".yml"}
        text = None if named else _read(path)
        found = operations_of(context).preview(run_id, name=recipe if named else None, text=text, folder=path.expanduser().resolve().parent)
    if as_json:
        terminal.json(found.model_dump(mode="json"))
        return
    terminal.out.print(f"[bold]{escape(found.repo)}[/] at {found.sha[:12]}, recipe {escape(found.recipe)}", soft_wrap=True)
    table = Sheet(columns=[*names("stage", ""), Column(heading="does", prose=True)])
    for item in found.stages:
        mark = "reused" if item.reused else "[yellow]anew[/]" if item.before else "[green]new[/]"
        table.add(escape(item.name), mark, escape(item.does))
    terminal.out.print(table)
    if found.gone:
        terminal.out.print(f"no more: {escape(', '.join(found.gone))}", soft_wrap=True)
    for data in found.missing:
        terminal.out.print(f"[yellow]not here[/] {escape(data)}: what reads it counts as to be done anew", soft_wrap=True)


def _read(file: Path) -> str:
    try:
        return file.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} cannot be read: {error}. Name a recipe's .yaml file.") from error
