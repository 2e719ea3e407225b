"""`sluice publications`, `republish` and `unpublish`: what was published, publishing it again, and taking it back."""

from dataclasses import dataclass
from typing import Annotated

import typer
from rich.markup import escape

from service.cli.context import Terminal, command_again, explained, goes_on, operations_of
from service.cli.options import AsJson, countable, spread
from service.cli.sheet import Sheet, names

Number = Annotated[int, typer.Argument(metavar="PUBLICATION", callback=countable, help="Number of a publication, as `sluice publications` lists it.")]


def publications(
    context: typer.Context,
    repo: Annotated[str | None, typer.Option(help="Only those in this repo.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="So many, the latest.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List what was published, the newest first. Times are UTC.

    Example: sluice publications --repo ours/model-GGUF
    """
    terminal = Terminal.open(as_json=as_json)
    with explained():
        found = operations_of(context).publications(repo, limit=limit)
    if as_json:
        terminal.json([item.model_dump(mode="json") for item in found])
        return
    if not found:
        terminal.out.print("nothing was published yet")
        return
    table = Sheet(columns=names("publication", "run", "at (UTC)", "state"))
    for item in found:
        back = item.unpublished
        state = "published" if back is None else f"unpublished by {escape(back.by)} on {back.at:%Y-%m-%d %H:%M}: {escape(back.reason)}"
        table.add(f"{item.id} {escape(item.repo)}@{item.revision[:12]}", str(item.run), f"{item.at:%Y-%m-%d %H:%M}", state)
    terminal.out.print(table)


def republish(context: typer.Context, publication: Number, as_json: AsJson = False) -> None:
    """Publish again what a run published. What was built and measured is reused, and a repo that holds the same files gets no commit.

    Where a newer release is published by then, that one stays; `sluice rollback` is what takes its place.

    Example: sluice republish 3
    """
    terminal = Terminal.open(as_json=as_json)
    with explained():
        operations = operations_of(context)
        run = operations.republish(publication)
        again = command_again(operations, run.run, context.obj)
    if as_json:
        terminal.json({"publication": publication, "run": run.run, "state": run.state, "next": again})
    else:
        terminal.out.print(f"run {run.run} is {run.state} again: {goes_on('publishes it', again)}", soft_wrap=True)


@dataclass(frozen=True, kw_only=True)
class TakenBack:
    """By whom, and why."""

    by: Annotated[str, typer.Option(help="Who decides this; it is kept on record.")]
    reason: Annotated[str, typer.Option(help="Why; likewise.")]


@spread
def unpublish(context: typer.Context, publication: Number, said: TakenBack, as_json: AsJson = False) -> None:
    """Make a published repo private, with name and reason on record. It keeps its files.

    It stays private until a person makes it public on the Hub; newer releases are published there, and seen by nobody until then.

    Example: sluice unpublish 3 --by Ada --reason "the licence changed"
    """
    terminal = Terminal.open(as_json=as_json)
    with explained():
        found = operations_of(context).unpublish(publication, by=said.by, reason=said.reason)
    if as_json:
        terminal.json(found.model_dump(mode="json"))
    else:
        terminal.out.print(f"[bold]{escape(found.repo)}[/] is private now", soft_wrap=True)
