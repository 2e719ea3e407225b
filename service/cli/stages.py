"""`sluice stages`: the way of a release, as a list or as a picture."""

from pathlib import Path
from typing import Annotated, Any

import typer

from config.errors import ConfigurationError
from service.cli.context import Terminal, explained
from service.cli.options import AsJson


def stages(
    recipe: Annotated[str, typer.Option(help="Recipe: a name from config/recipes, or the path of a .yaml file.")] = "default",
    svg: Annotated[Path | None, typer.Option(dir_okay=False, resolve_path=True, help="Draw the graph into this .svg file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the stages that a recipe asks for, and what each does. Nothing is run and no Hub is asked.

    --json also tells what each takes and comes after, what is measured there, and in which unit it reports.

    Example: sluice stages --recipe my-recipe.yaml --svg way.svg
    """
    from config.data import as_written
    from config.written import load_recipe
    from service.release.drawing import draw
    from service.release.way import way

    terminal = Terminal.open(as_json=as_json)
    if svg is not None and (svg.suffix != ".svg" or not svg.parent.is_dir()):
        raise typer.BadParameter(f"--svg {svg}: name a .svg file in a folder that exists")
    with explained():
        graph = way(load_recipe(recipe, data=False, locate=as_written))
        if svg is not None:
            try:
                svg.write_text(draw(graph), encoding="utf-8")
            except OSError as error:
                raise ConfigurationError(f"The picture cannot be written to {svg}: {error.strerror}. Name a file in a folder that is there.") from error
    rows = [
        {
            "name": stage.name,
            "phase": stage.phase.name.lower(),
            "does": stage.does,
            "takes": list(stage.takes),
            "after": list(stage.after),
            "unit": stage.unit or None,
            "measures": list(stage.measures),
            "gated": stage.gated,
        }
        for stage in graph.stages
    ]
    if as_json:
        terminal.json(rows)
    else:
        _show(terminal, rows)


def _show(terminal: Terminal, rows: list[dict[str, Any]]) -> None:
    from rich.markup import escape

    phase = ""
    for row in rows:
        if row["phase"] != phase:
            phase = row["phase"]
            terminal.out.print(f"[bold]{phase}[/]")
        gate = " [yellow](its gates may end the run)[/]" if row["gated"] else ""
        terminal.out.print(f"  [cyan]{escape(row['name'])}[/]: {escape(row['does'])}{gate}", soft_wrap=True)
