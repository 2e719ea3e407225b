"""`sluice rollback`: publishing an older release again, on purpose."""

from dataclasses import dataclass
from typing import Annotated

import typer

from service.cli.context import Terminal, command_again, explained, goes_on, operations_of
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
    from service.runs.deciding import Decision

    terminal = Terminal.open(as_json=as_json)
    with explained():
        operations = operations_of(context)
        run = operations.roll_back(run_id, Decision(by=decided.by, comment=decided.comment))
        again = command_again(operations, run_id, context.obj)
    newer = "" if run.rollback is None else run.rollback.sha
    way = f"rolled back from {newer[:12]} to {run.release.sha[:12]}" if newer != run.release.sha else f"{run.release.sha[:12]} comes back"
    if as_json:
        terminal.json({"run": run_id, "state": run.state, "to": run.release.sha, "from": newer, "next": again})
    else:
        terminal.out.print(
            f"{way}, and run {run_id} is queued again: {goes_on('publishes it', again)}",
            soft_wrap=True,
        )
