"""`sluice cancel`, `pause`, `resume`, `prioritize`, `retry` and `redo`: what a person may ask of a run, whoever carries it out."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.context import Terminal, explained, operations_of
from service.cli.options import AsJson, RunNumber

if TYPE_CHECKING:
    from service.operations import Operations
    from service.runs.summary import RunSummary


def cancel(context: typer.Context, run_id: RunNumber, as_json: AsJson = False) -> None:
    """End a run. One that waits ends at once, one at work within seconds; what its finished stages made is kept, and found again when it is tried again.

    Example: sluice cancel 12
    """
    _ask(context, run_id, as_json, lambda operations: operations.cancel(run_id))


def pause(context: typer.Context, run_id: RunNumber, as_json: AsJson = False) -> None:
    """Put a run aside. One at work is paused when its stage is done, so that nothing has to be done again.

    Example: sluice pause 12
    """
    _ask(context, run_id, as_json, lambda operations: operations.pause(run_id))


def resume(context: typer.Context, run_id: RunNumber, as_json: AsJson = False) -> None:
    """Let a paused run go on: it gets back its place in the queue.

    Example: sluice resume 12
    """
    _ask(context, run_id, as_json, lambda operations: operations.resume(run_id))


def prioritize(
    context: typer.Context,
    run_id: RunNumber,
    priority: Annotated[int, typer.Argument(help="From -100 to 100; 0 unless somebody sets it. The highest is carried out first.")],
    as_json: AsJson = False,
) -> None:
    """Put a run before those with a lower priority. What is at work is not interrupted for it.

    Example: sluice prioritize 12 10
    """
    _ask(context, run_id, as_json, lambda operations: operations.prioritize(run_id, priority))


def retry(context: typer.Context, run_id: RunNumber, as_json: AsJson = False) -> None:
    """Carry a run out again that has ended. What it made is found again, and waivers that were given since count.

    A running service does it; it is only queued here.

    Example: sluice retry 12
    """
    _ask(context, run_id, as_json, lambda operations: operations.retry(run_id))


def redo(
    context: typer.Context,
    run_id: RunNumber,
    stages: Annotated[list[str], typer.Argument(metavar="STAGE...", help="Stages to do anew, as `sluice status RUN` names them, or families of them.")],
    as_json: AsJson = False,
) -> None:
    """Carry a run out again that has ended, and do some of its stages anew although what they made is kept.

    A running service does it; it is only queued here. Stages after them are done anew where what they take has changed.

    Example: sluice redo 12 convert
    """
    _ask(context, run_id, as_json, lambda operations: operations.redo(run_id, stages))


def _ask(context: typer.Context, run_id: int, as_json: bool, deed: "Callable[[Operations], RunSummary]") -> None:
    terminal = Terminal.open(as_json=as_json)
    with explained():
        run = deed(operations_of(context))
    if as_json:
        terminal.json({"run": run.run, "state": run.state, "wanted": run.wanted, "priority": run.priority})
        return
    soon = {"cancel": ", and will be cancelled within seconds", "pause": ", and will be paused when its stage is done", None: ""}[run.wanted]
    terminal.out.print(f"run {run_id} is {run.state}{soon}{f', priority {run.priority}' if run.priority else ''}")
