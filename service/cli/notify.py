"""`sluice notify`: the places that are told how runs end."""

from typing import Annotated

import typer
from rich.markup import escape

from service.cli.context import Terminal, explained, operations_of, settings_of
from service.cli.options import AsJson

LATEST = 50  # messages that are listed

app = typer.Typer(help="The places that are told how runs end: trying one, and what was sent.", no_args_is_help=True)


@app.command("test")
def test(context: typer.Context, name: Annotated[str, typer.Argument(help="Name of the place, as in `notify` of the settings.")]) -> None:
    """Send a place a message that says it is only a test.

    Example: sluice notify test team
    """
    from config.errors import ConfigurationError
    from config.near import hint
    from publishers.notify import Notice, body, send

    terminal = Terminal.open(as_json=False)
    with explained():
        places = {place.name: place for place in settings_of(context).notify}
        if name not in places:
            raise ConfigurationError(f"`notify` of the settings names no place {name!r}.{hint(name, list(places))} It names: {', '.join(places) or 'none'}.")
        notice = Notice(
            ending="published", run=0, attempt=1, repo="owner/name", sha="0" * 40, recipe="default", blocked={}, reason="This is only a test of `notify`."
        )
        send(places[name], body(places[name].form, notice))
    terminal.out.print(f"delivered to {escape(name)}")


@app.command("list")
def show(context: typer.Context, as_json: AsJson = False) -> None:
    """List the latest messages, and how sending them went.

    Example: sluice notify list
    """
    terminal = Terminal.open(as_json=as_json)
    with explained():
        found = operations_of(context).deliveries(limit=LATEST)
    if as_json:
        terminal.json([item.model_dump(mode="json") for item in found])
        return
    for item in found:
        until = f", next at {item.due:%Y-%m-%d %H:%M} UTC" if item.state == "pending" and item.error is not None else ""
        error = "" if item.error is None else f": {item.error}"
        line = f"{item.created:%Y-%m-%d %H:%M} UTC  {item.place}  {item.subject} {item.ending}  {item.state.replace('_', ' ')}{until}{error}"
        terminal.out.print(line, markup=False, soft_wrap=True)
    if not found:
        terminal.out.print("nothing was sent yet")
