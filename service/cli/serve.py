"""`sluice serve`: the daemon."""

from typing import Annotated

import typer

from service.cli.context import explained, settings_of


def serve(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(help="Address of the API. Default: the setting `api_host`.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Its port; 0 picks a free one. Default: the setting `api_port`.")] = None,
) -> None:
    """Run day and night: poll the watch list, take webhooks, serve the API, and carry out queued runs.

    Stop it with Ctrl-C or SIGTERM; started again, it goes on where it was.

    Example: sluice --config sluice.yaml serve --port 8080
    """
    from service.daemon import serve as daemon
    from service.release.lifecycle import execute

    with explained(signals=False):  # it has its own
        given = {"api_host": host, "api_port": port}
        settings = settings_of(context).with_(**{name: value for name, value in given.items() if value is not None})
        daemon.serve(settings, lambda store, run: execute(store, run, settings))
