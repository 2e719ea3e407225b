"""`sluice logs`: what a stage said."""

import sys
from typing import Annotated

import typer

from service.cli.context import Terminal, explained, operations_of
from service.cli.options import AsJson, RunNumber

LOOK_SECONDS = 1.0  # between two looks for more


def logs(
    context: typer.Context,
    run_id: RunNumber,
    stage: Annotated[
        str | None, typer.Argument(metavar="[STAGE]", help="A stage as `sluice status RUN` names it; default: the one at work, or the last.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is added until the stage has ended.")] = False,
    tail: Annotated[int, typer.Option(min=0, max=2**24, help="Begin with so many bytes at the end of the log.")] = 65_536,
    as_json: AsJson = False,
) -> None:
    """Print the log of a stage, without secrets. Ctrl-C ends that, not the run.

    With --json and --follow: a document a line, for each piece.

    Example: sluice logs 12 convert --follow
    """
    terminal = Terminal.open(as_json=as_json)
    with explained(resume="the run goes on"):
        operations = operations_of(context)
        named = stage or _newest([item.name for item in operations.run(run_id).stages], run_id)
        if not follow:
            text = operations.log(run_id, named, tail=tail)
            terminal.json({"run": run_id, "stage": named, "log": text}) if as_json else _print(text)
            return
        for text in operations.log_growing(run_id, named, tail=tail, seconds=LOOK_SECONDS):
            terminal.json_line({"run": run_id, "stage": named, "log": text}) if as_json else _print(text)


def _newest(stages: list[str], run: int) -> str:
    """The stage that was begun last. Raises SluiceError where none was."""
    from config.errors import SluiceError

    if not stages:
        raise SluiceError(f"Run {run} has begun no stage yet. `sluice status {run}` shows how it stands.")
    return stages[-1]


def _print(text: str) -> None:
    sys.stdout.write(text if text.endswith("\n") or not text else f"{text}\n")
    sys.stdout.flush()
