"""`sluice rollback`: publishing an older release again, on purpose."""

from dataclasses import dataclass
from typing import Annotated

import typer
from rich.markup import escape

from service.cli.context import Terminal, explained, settings_of
from service.cli.options import AsJson, RunNumber, spread


@dataclass(frozen=True, kw_only=True)
class Decided:
    """By whom, and why."""

    by: Annotated[str, typer.Option(help="Who decides this; it stands in the manifest.")]
    comment: Annotated[str, typer.Option(help="Why; likewise.")]


@spread
def rollback(context: typer.Context, run_id: RunNumber, decided: Decided, as_json: AsJson = False) -> None:
    """Publish the release of an earlier run again, in the place of the newer one that is published now.

    A running service does it; without one, the command that is shown does. Nothing is built or measured anew. What the upstream releases after this is
    published as ever. Whatever else asks for an older release while a newer one is published changes nothing. What gave way so comes back by the same command.

    Example: sluice rollback 12 --by Ada --comment "the new weights answer in the wrong language"
    """
    from service.cli.verdicts import command_again
    from service.hubclient import connect
    from service.release.rollback import roll_back
    from service.runs.deciding import Decision
    from service.store import open_store

    terminal = Terminal.open(as_json=as_json)
    with explained():
        settings = settings_of(context)
        store = open_store(settings.database)
        run = roll_back(store, connect(settings), run_id, Decision(by=decided.by, comment=decided.comment))
        again = command_again(store, run_id, context.obj)
    newer = "" if run.rollback is None else run.rollback.sha
    way = f"rolled back from {newer[:12]} to {run.release.sha[:12]}" if newer != run.release.sha else f"{run.release.sha[:12]} comes back"
    if as_json:
        terminal.json({"run": run_id, "state": run.state, "to": run.release.sha, "from": newer, "next": again})
    else:
        terminal.out.print(
            f"{way}, and run {run_id} is queued again: a running service publishes it, or [bold]{escape(again)}[/]",
            soft_wrap=True,
        )
