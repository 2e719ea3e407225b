"""`sluice run`: one release, now."""

from typing import Annotated

import typer

from service.cli.context import Terminal, explained, settings_of, verdict_code
from service.cli.options import AsJson


def run(
    context: typer.Context,
    repo: Annotated[str, typer.Argument(help="Upstream repo on the Hub, as owner/name.")],
    revision: Annotated[str, typer.Option(help="Branch, tag or commit to release.")] = "main",
    recipe: Annotated[str, typer.Option(help="Recipe: a name from config/recipes, or the path of a .yaml file.")] = "default",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be built and published, what it needs, and what would refuse it; build nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Release one upstream repo now: fix, build, measure, judge, publish what passes.

    The same command again goes on where an interrupted run stopped, and publishes nothing new when nothing changed.

    Example: sluice run Qwen/Qwen3-0.6B --recipe my-recipe.yaml --dry-run
    """
    from service.cli.display import progress, show_run
    from service.cli.preview import show
    from service.release import foreground
    from service.release.dry_run import plan

    terminal = Terminal.open(as_json=as_json)
    with explained():
        settings = settings_of(context)
        if dry_run:
            planned = plan(settings, repo, revision, recipe)
            terminal.json(planned.as_json()) if as_json else show(terminal.out, planned)
            return
        with progress(terminal.progress, line_seconds=settings.progress_seconds) as listener:
            result = foreground.run(settings, repo, revision, recipe, listener)
    if as_json:
        terminal.json(result)
    else:
        show_run(terminal.out, result)
    raise typer.Exit(verdict_code(result))
