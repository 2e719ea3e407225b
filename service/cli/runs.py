"""`sluice run` and `sluice status`."""

from contextlib import suppress
from typing import Annotated

import typer

from service.cli import following
from service.cli.context import Terminal, explained, settings_of, verdict_code
from service.cli.display import progress, runs_table, show_run
from service.cli.preview import show
from service.release import foreground
from service.release.dry_run import plan
from service.release.report import NoReport, find
from service.runs.summary import summary
from service.store import Store, open_store

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output, and nothing else there.")]


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
    """
    terminal = Terminal.open(as_json=as_json)
    with explained():
        settings = settings_of(context)
        if dry_run:
            planned = plan(settings, repo, revision, recipe)
            terminal.json(planned.as_json()) if as_json else show(terminal.out, planned)
            return
        with progress(terminal.progress) as listener:
            result = foreground.run(settings, repo, revision, recipe, listener)
    if as_json:
        terminal.json(result)
    else:
        show_run(terminal.out, result)
    raise typer.Exit(verdict_code(result))


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
    """
    terminal = Terminal.open(as_json=as_json)
    with explained():
        settings = settings_of(context)
        store = open_store(settings.database)
        if follow:
            run_id = following.newest_running(store) if run_id is None else run_id
            if run_id is None:
                terminal.progress.print("no run is being carried out; [bold]sluice status[/] lists those there are")
                return
            _follow(terminal, store, run_id)
        if run_id is None:
            _list(terminal, store)
            return
        result = summary(store, run_id)
        if as_json and not follow:
            terminal.json(result)
        elif not as_json:
            show_run(terminal.out, result)
            with suppress(NoReport):
                terminal.out.print(f"report: {find(store, settings, run_id)}", markup=False, soft_wrap=True)
        raise typer.Exit(verdict_code(result))


def _follow(terminal: Terminal, store: Store, run_id: int) -> None:
    try:
        if terminal.as_json:
            for document in following.changes(store, run_id):
                terminal.json_line(document)
        else:
            following.follow(store, run_id, terminal.out)
    except KeyboardInterrupt as interrupt:
        state = store.run(run_id).state
        terminal.err.print(f"no longer following; run {run_id} {'goes on' if state == 'running' else f'is {state}'}")
        raise typer.Exit(verdict_code(summary(store, run_id))) from interrupt


def _list(terminal: Terminal, store: Store) -> None:
    runs = store.runs(limit=20)
    if terminal.as_json:
        terminal.json(
            [{"run": item.id, "release": {"repo": item.release.repo, "sha": item.release.sha}, "recipe": item.recipe, "state": item.state} for item in runs]
        )
    elif runs:
        terminal.out.print(runs_table(runs))
    else:
        terminal.out.print("no runs yet; start one with [bold]sluice run OWNER/NAME[/]")
