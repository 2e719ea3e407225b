"""`sluice status`: what runs there are, how far one has come, and what came of it."""

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.context import Terminal, explained, settings_of, verdict_code
from service.cli.options import AsJson

if TYPE_CHECKING:
    from config.settings import Settings
    from service.store import Store


def status(
    context: typer.Context,
    run_id: Annotated[int | None, typer.Argument(metavar="[RUN]", help="Number of a run; without it the latest runs are listed.")] = None,
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
    from rich.markup import escape

    from service.cli.display import show_run
    from service.disk.space import space
    from service.runs.report import NoReport, find
    from service.runs.summary import summary
    from service.store import open_store

    terminal = Terminal.open(as_json=as_json)
    with explained():
        settings = settings_of(context)
        store = open_store(settings.database)
        if follow:
            from service.cli import following

            run_id = following.newest_running(store) if run_id is None else run_id
            if run_id is None:
                terminal.progress.print("no run is being carried out; [bold]sluice status[/] lists those there are")
                return
            _follow(terminal, store, run_id, settings.progress_seconds)
        if run_id is None:
            _list(terminal, store)
            if not as_json:
                _watched(terminal, store, settings)
                if (there := space(settings)).paused:
                    terminal.out.print(f"[yellow]paused[/] {escape(there.told)}", soft_wrap=True)
            return
        result = summary(store, run_id)
        if as_json and not follow:
            terminal.json(result)
        elif not as_json:
            show_run(terminal.out, result)
            with suppress(NoReport):
                terminal.out.print(f"report: {find(store, settings, run_id)}", markup=False, soft_wrap=True)
        raise typer.Exit(verdict_code(result))


def _follow(terminal: Terminal, store: "Store", run_id: int, line_seconds: float) -> None:
    from service.cli import following
    from service.runs.summary import summary

    try:
        if terminal.as_json:
            for document in following.changes(store, run_id):
                terminal.json_line(document)
        else:
            following.follow(store, run_id, terminal.out, line_seconds=line_seconds)
    except KeyboardInterrupt as interrupt:
        state = store.run(run_id).state
        terminal.err.print(f"no longer following; run {run_id} {'goes on' if state == 'running' else f'is {state}'}")
        raise typer.Exit(verdict_code(summary(store, run_id))) from interrupt


def _watched(terminal: Terminal, store: "Store", settings: "Settings") -> None:
    if not (settings.watch or store.watch_entries()):
        return  # and nothing needs to be imported
    from rich.markup import escape

    from service.release.checks.watch import broken
    from service.release.watchlist import entries

    for listing in store.listings():
        if listing.error:
            when = f"{listing.at:%Y-%m-%d %H:%M} UTC"
            terminal.out.print(f"[yellow]not listed[/] [bold]{escape(listing.owner)}[/] at {when}: {escape(listing.error)}", soft_wrap=True)
    for item in broken(entries(store, settings)):
        terminal.out.print(f"[red]cannot be released[/] [bold]{escape(item.repo)}[/] (recipe {escape(item.recipe)}): {escape(item.error)}", soft_wrap=True)


def _list(terminal: Terminal, store: "Store") -> None:
    from rich.markup import escape

    from service.cli.display import runs_table
    from service.runs.again import again, of_follow_up

    runs = store.runs(limit=20)
    if terminal.as_json:
        terminal.json(
            [
                {
                    "run": item.id,
                    "release": {"repo": item.release.repo, "sha": item.release.sha},
                    "recipe": item.recipe,
                    "state": item.state,
                    "again": None if (found := again(item)) is None else found.model_dump(mode="json"),
                }
                for item in runs
            ]
        )
        return
    if runs:
        terminal.out.print(runs_table(runs))
    else:
        terminal.out.print("no runs yet; start one with [bold]sluice run OWNER/NAME[/]")
    for run in runs:
        if run.due is not None and (next_try := again(run)) is not None:
            terminal.out.print(f"[yellow]waits[/] run {run.id}: {escape(run.error or '')} {escape(next_try.said)}", soft_wrap=True)
    for item in store.follow_ups():
        terminal.out.print(f"[yellow]still to do[/] for run {item.run}: {escape(of_follow_up(item))}", soft_wrap=True)
    for hint in store.hints():
        if hint.error:
            terminal.out.print(
                f"[yellow]not queued[/] [bold]{escape(hint.repo)}[/], looked at again {hint.due:%Y-%m-%d %H:%M} UTC: {escape(hint.error)}", soft_wrap=True
            )
