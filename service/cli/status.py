"""`sluice status`: what runs there are, how far one has come, and what came of it."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from service.cli.context import Terminal, explained, operations_of, settings_anywhere, verdict_code
from service.cli.options import AsJson, countable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from service.operations import Operations
    from service.runs.heads import RunHead


def status(
    context: typer.Context,
    run_id: Annotated[int | None, typer.Argument(metavar="[RUN]", callback=countable, help="Number of a run; without it the latest runs are listed.")] = None,
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Keep showing RUN, or the newest that is running, until it ends. With --json: a document a line, at each change."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the latest runs, or everything about one. Of one run the exit code tells how it ended, as `sluice run` does.

    Ctrl-C ends the following, not the run.

    Example: sluice status 12 --follow
    """
    from service.cli.display import show_run

    terminal = Terminal.open(as_json=as_json)
    with explained():
        operations = operations_of(context)
        if follow:
            from service.cli import following

            run_id = following.newest_running(operations) if run_id is None else run_id
            if run_id is None:
                terminal.progress.print("no run is being carried out; [bold]sluice status[/] lists those there are")
                return
            watch(terminal, operations, run_id, settings_anywhere(context).progress_seconds)
        if run_id is None:
            _list(terminal, operations)
            return
        found = operations.run(run_id)
        result = found.model_dump(mode="json")
        if as_json and not follow:
            terminal.json(result)
        elif not as_json:
            show_run(terminal.out, result)
            if (place := operations.report_place(found)) is not None:
                terminal.out.print(f"report: {place}", markup=False, soft_wrap=True)
        raise typer.Exit(verdict_code(result))


def watch(terminal: Terminal, operations: "Operations", run_id: int, line_seconds: float) -> None:
    """Show the run until it ends; Ctrl-C ends that, and the command."""
    from service.cli import following

    try:
        if terminal.as_json:
            for found in operations.changes(run_id, seconds=following.LOOK_SECONDS):
                terminal.json_line(found.model_dump(mode="json"))
        else:
            following.follow(operations, run_id, terminal.out, line_seconds=line_seconds)
    except KeyboardInterrupt as interrupt:
        found = operations.run(run_id)
        terminal.err.print(f"no longer following; run {run_id} {'goes on' if found.state == 'running' else f'is {found.state}'}")
        raise typer.Exit(verdict_code(found.model_dump(mode="json"))) from interrupt


def _list(terminal: Terminal, operations: "Operations") -> None:
    from service.store import RunFilter

    runs = operations.runs(RunFilter(), limit=20)
    if terminal.as_json:
        terminal.json([item.model_dump(mode="json", include={"run", "release", "recipe", "state", "again"}) for item in runs])
        return
    _show_runs(terminal, runs)
    found = operations.attention()
    lines = [
        *(f"[yellow]still to do[/] for run {item.run}: {escape(item.said)}" for item in found.still_to_do),
        *(f"[yellow]not queued[/] [bold]{escape(item.repo)}[/], looked at again {_utc(item.due)}: {escape(item.error)}" for item in found.not_queued),
        *(f"[yellow]not listed[/] [bold]{escape(item.owner)}[/] at {_utc(item.at)}: {escape(item.error)}" for item in found.not_listed),
        *(f"[red]cannot be released[/] [bold]{escape(item.repo)}[/] (recipe {escape(item.recipe)}): {escape(item.error)}" for item in found.unreleasable),
        *([] if found.paused is None else [f"[yellow]paused[/] {escape(found.paused)}"]),
        *([] if found.untaken is None else [f"[red]stuck[/] {escape(found.untaken)}"]),
        *(f"[red]{item.state}[/] [bold]{escape(item.part)}[/]: {escape(item.said)}" for item in found.unwell),
    ]
    for line in lines:
        terminal.out.print(line, soft_wrap=True)


def _show_runs(terminal: Terminal, runs: "Sequence[RunHead]") -> None:
    from service.cli.display import runs_table

    if runs:
        terminal.out.print(runs_table(runs))
    else:
        terminal.out.print("no runs yet; start one with [bold]sluice run OWNER/NAME[/]")
    for run in runs:
        if run.state == "queued" and run.again is not None:
            terminal.out.print(f"[yellow]waits[/] run {run.run}: {escape(run.error or '')} {escape(run.again.said)}", soft_wrap=True)


def _utc(at: "datetime") -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
