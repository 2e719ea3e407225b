"""`sluice family`: what Sluice knows of families of models, and whether a file about one is right."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli.context import Exit, Terminal, explained
from service.cli.options import AsJson

app = typer.Typer(help="Families of models: whether what a file says about one is true.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Families of models: whether what a file says about one is true."""


@app.command("check")
def check(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, resolve_path=True, help="YAML file of a family, as those in config/families.")],
    as_json: AsJson = False,
) -> None:
    """Hold a family file against the chat templates that it names: is it recognised by them, by no other family, and does a turn end as it says?

    Templates are files in the folder `templates` beside the file, or of llama.cpp's collection. Exit code 3 when something is wrong.

    Example: sluice family check config/families/qwen3.yaml
    """
    from builders import families

    terminal = Terminal.open(as_json=as_json)
    with explained():
        faults = families.check(file)
    if as_json:
        terminal.json({"file": str(file), "faults": faults})
    else:
        from rich.markup import escape

        for fault in faults:
            terminal.out.print(f"[red]✗[/] {escape(fault)}", soft_wrap=True)
        if not faults:
            terminal.out.print(f"[green]✓[/] {escape(file.name)}: every template that it names bears it out", soft_wrap=True)
    raise typer.Exit(Exit.BLOCKED if faults else Exit.DONE)
