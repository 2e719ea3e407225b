"""`sluice serve`: the daemon."""

import typer

from service.cli.context import explained, settings_of


def serve(context: typer.Context) -> None:
    """Run day and night: poll the watch list, take webhooks, serve the API, and carry out queued runs.

    Stop it with Ctrl-C or SIGTERM; started again, it goes on where it was.
    """
    from service.daemon import serve as daemon
    from service.release.lifecycle import execute

    with explained(signals=False):  # it has its own
        settings = settings_of(context)
        daemon.serve(settings, lambda store, run: execute(store, run, settings))
