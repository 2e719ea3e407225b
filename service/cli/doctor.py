"""`sluice doctor`: what this machine has, what is missing, and what to do."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from service.cli.context import Exit, Terminal, explained, settings_of

_MARKS = {True: "[green]ok[/]", False: "[red]missing[/]", None: "[dim]–[/]"}


def doctor(context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Report versions, tools, disk, memory, GPU and Hub login. Exit code 1 when something that Sluice needs is missing."""
    from service.machine.doctor import examine

    terminal = Terminal.open(as_json=as_json)
    with explained():
        findings = examine(settings_of(context))
    if as_json:
        terminal.json([asdict(finding) for finding in findings])
    else:
        table = Table("what", "found", "", "what to do")
        for finding in findings:
            table.add_row(escape(finding.name), escape(finding.value), _MARKS[finding.ok], escape(finding.advice or ""))
        terminal.out.print(table)
    raise typer.Exit(Exit.FAILED if any(finding.ok is False for finding in findings) else Exit.DONE)
