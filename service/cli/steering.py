"""`sluice cancel`, `pause`, `resume` and `prioritize`: what a person may ask of a run, be it a service that carries it out or this command elsewhere."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.context import Terminal, explained, settings_of
from service.cli.options import AsJson, RunNumber

if TYPE_CHECKING:
    from service.store import RunRecord, Store


def cancel(context: typer.Context, run_id: RunNumber, as_json: AsJson = False) -> None:
    """End a run. One that waits ends at once, one at work within seconds; what its finished stages made is kept, and found again when it is tried again.

    Example: sluice cancel 12
    """
    from service.runs import steering

    _ask(context, run_id, as_json, lambda store: steering.cancel(store, run_id, steering.Actor()))


def pause(context: typer.Context, run_id: RunNumber, as_json: AsJson = False) -> None:
    """Put a run aside. One at work is paused when its stage is done, so that nothing has to be done again.

    Example: sluice pause 12
    """
    from service.runs import steering

    _ask(context, run_id, as_json, lambda store: steering.pause(store, run_id, steering.Actor()))


def resume(context: typer.Context, run_id: RunNumber, as_json: AsJson = False) -> None:
    """Let a paused run go on: it gets back its place in the queue.

    Example: sluice resume 12
    """
    from service.runs import steering

    _ask(context, run_id, as_json, lambda store: steering.resume(store, run_id, steering.Actor()))


def prioritize(
    context: typer.Context,
    run_id: RunNumber,
    priority: Annotated[int, typer.Argument(help="From -100 to 100; 0 unless somebody sets it. The highest is carried out first.")],
    as_json: AsJson = False,
) -> None:
    """Put a run before those with a lower priority. What is at work is not interrupted for it.

    Example: sluice prioritize 12 10
    """
    from service.runs import steering

    _ask(context, run_id, as_json, lambda store: steering.prioritize(store, run_id, priority, steering.Actor()))


def _ask(context: typer.Context, run_id: int, as_json: bool, deed: "Callable[[Store], RunRecord]") -> None:
    from service.store import open_store

    terminal = Terminal.open(as_json=as_json)
    with explained():
        run = deed(open_store(settings_of(context).database))
    if as_json:
        terminal.json({"run": run.id, "state": run.state, "wanted": run.wanted, "priority": run.priority})
        return
    soon = {"cancel": ", and will be cancelled within seconds", "pause": ", and will be paused when its stage is done", None: ""}[run.wanted]
    terminal.out.print(f"run {run_id} is {run.state}{soon}{f', priority {run.priority}' if run.priority else ''}")
