"""A release that a service elsewhere carries out: it is queued there and followed here."""

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from config.errors import ConfigurationError
from service.cli.context import Terminal, settings_anywhere, verdict_code

if TYPE_CHECKING:
    from config.settings import Settings
    from service.cli.release import How, What, Where


def release_there(context: typer.Context, terminal: Terminal, what: "What", where: "Where", how: "How") -> NoReturn:
    """Queue the release and show it until it ends; the exit code tells how, as of a release here. Raises ConfigurationError for what only works here."""
    from service.cli.display import show_run
    from service.cli.status import watch
    from service.operations.line import Line
    from service.operations.remote import Elsewhere
    from service.release.what import meant

    settings = settings_anywhere(context)
    _refuse_local(settings, what, where, how)
    found = meant(what.what, endpoint=settings.hub_endpoint, revision=what.revision, name=None)
    operations = Elsewhere(line=Line.to(settings))
    context.call_on_close(operations.close)
    run = operations.start(found.repo, revision=what.revision and found.revision, recipe=what.recipe, redo=how.redo or ())
    terminal.progress.print(f"run {run.run} is {run.state} at {settings.server}", soft_wrap=True)
    watch(terminal, operations, run.run, settings.progress_seconds)
    result = operations.run(run.run).model_dump(mode="json")
    if not terminal.as_json:
        show_run(terminal.out, result)
    raise typer.Exit(verdict_code(result))


def _refuse_local(settings: "Settings", what: "What", where: "Where", how: "How") -> None:
    """Raise ConfigurationError for a folder, and for options that concern this machine."""
    if Path(what.what).expanduser().is_dir():
        raise ConfigurationError(
            f"{what.what} is a folder of this machine, and the service at {settings.server} releases what is on its Hub: upload it there, or release it "
            "here with SLUICE_SERVER unset."
        )
    given = {
        "--to": where.to,
        "--namespace": where.namespace,
        "--private": where.private,
        "--name": what.name,
        "--variants": what.variants,
        "--quick": what.quick,
        "--dry-run": how.dry_run,
        "--fixes-as-pr": how.fixes_as_pr,
    }
    if named := [option for option, value in given.items() if value]:
        raise ConfigurationError(
            f"{' and '.join(named)} cannot be asked of the service at {settings.server}, which goes by its own settings and recipes: leave that out, or "
            "release here with SLUICE_SERVER unset."
        )
