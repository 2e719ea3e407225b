"""`sluice approve`: letting a held release go on."""

from dataclasses import dataclass
from typing import Annotated

import typer
from rich.markup import escape

from service.cli.context import Terminal, command_again, explained, goes_on, operations_of
from service.cli.options import AsJson, RunNumber, spread


@dataclass(frozen=True, kw_only=True)
class Approved:
    """What is approved, by whom and why."""

    by: Annotated[str, typer.Option(help="Who decides this; it is kept with the run, and stands on the card.")]
    comment: Annotated[str, typer.Option(help="Why; likewise.")]
    only: Annotated[str | None, typer.Option(help="Only this of what the run is held for, as `sluice status` names it; default: all.")] = None


@spread
def approve(
    context: typer.Context,
    run_id: RunNumber,
    approved: Approved,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Take the approval back; `--comment` then says why.")] = False,
    as_json: AsJson = False,
) -> None:
    """Let a held release go on: what `sluice status RUN` shows as proposed is done, and the run is queued again.

    A running service goes on with it; without one, the command that started the run does. Nothing of what the run made before is made anew.

    Example: sluice approve 12 --by Ada --comment "the template ends turns so"
    """
    from service.runs import holds

    terminal = Terminal.open(as_json=as_json)
    with explained():
        operations = operations_of(context)
        decision = holds.Decision(by=approved.by, comment=approved.comment, subject=approved.only)
        run = operations.withdraw_approval(run_id, decision) if withdraw else operations.approve(run_id, decision)
        again = command_again(operations, run_id, context.obj)
        left = [item.subject for item in run.held if item.approval is None]
    if as_json:
        terminal.json({"run": run_id, "state": run.state, "undecided": left, "next": again})
    elif left:
        terminal.out.print(f"recorded. Undecided of run {run_id}: {escape(', '.join(left))}", soft_wrap=True)
    else:
        terminal.out.print(f"approved, and run {run_id} is queued again: {goes_on('goes on with it', again)}", soft_wrap=True)
