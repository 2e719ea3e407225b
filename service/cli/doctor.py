"""`sluice doctor`: what this machine has, what is missing, and what to do."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape

from service.cli.context import Exit, Terminal, explained, settings_anywhere
from service.cli.sheet import Column, Sheet, names

_MARKS = {True: "[green]ok[/]", False: "[red]missing[/]", None: "[dim]–[/]"}


def doctor(context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Report versions, tools, disk, memory, GPU and Hub login. Exit code 1 when something that Sluice needs is missing.

    Example: sluice doctor
    """
    from service.machine.doctor import examine

    terminal = Terminal.open(as_json=as_json)
    with explained():
        findings = examine(lambda: settings_anywhere(context))
    if as_json:
        terminal.json([asdict(finding) for finding in findings])
    else:
        table = Sheet(columns=[*names("", "what"), Column(heading="found, and what to do", prose=True)])
        for finding in findings:
            table.add(_MARKS[finding.ok], escape(finding.name), escape(finding.value) + (f"\n[yellow]{escape(finding.advice)}[/]" if finding.advice else ""))
        terminal.out.print(table)
    raise typer.Exit(Exit.FAILED if any(finding.ok is False for finding in findings) else Exit.DONE)
