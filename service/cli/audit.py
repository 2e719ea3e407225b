"""`sluice audit`: what happened, and by whom."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.context import Terminal, explained, operations_of
from service.cli.options import AsJson, spread

if TYPE_CHECKING:
    from service.store import AuditRecord


@dataclass(frozen=True, kw_only=True)
class Looked:
    """Which events are looked for."""

    subject: Annotated[str | None, typer.Option(help="Only events about this: run/12, publication/3, token/NAME, login/ADDRESS.")] = None
    source: Annotated[str | None, typer.Option(help="Only events that came this way: api, dashboard, command, poll, webhook.")] = None
    action: Annotated[str | None, typer.Option(help="Only events of this name: queued, waived, cancelled, revoked, …")] = None
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="So many, the latest.")] = 50


@spread
def audit(context: typer.Context, looked: Looked, as_json: AsJson = False) -> None:
    """Show the audit trail, the newest event last: what happened, by which way, and who did it. Times are UTC.

    Example: sluice audit --subject run/12
    """
    from service.store import AuditFilter

    terminal = Terminal.open(as_json=as_json)
    with explained():
        wanted = AuditFilter(subject=looked.subject, source=looked.source, action=looked.action)
        events = operations_of(context).audit(wanted, limit=looked.limit)[::-1]
    if as_json:
        terminal.json([{**vars(event), "at": event.at.isoformat()} for event in events])
        return
    for event in events:
        terminal.out.print(_line(event), markup=False, soft_wrap=True)
    if not events:
        terminal.out.print("nothing of that kind happened")


def _line(event: "AuditRecord") -> str:
    told = "; ".join(f"{name}: {value}" for name, value in event.details.items() if value is not None)
    return f"{event.at:%Y-%m-%d %H:%M:%S} UTC  {event.source}  {event.subject}  {event.action}{f'  ({told})' if told else ''}"
