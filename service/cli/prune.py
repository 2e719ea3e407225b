"""`sluice prune`: throw away what nobody needs any more, and say why the rest stays."""

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.context import Terminal, explained, settings_of
from service.cli.options import AsJson

if TYPE_CHECKING:
    from service.cli.sheet import Sheet
    from service.disk.pruning import Told


def prune(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go and what stays.")] = False,
    as_json: AsJson = False,
) -> None:
    """Throw away outputs of stages that nobody needs any more, as the settings under `keep` say, and tell why each of the others stays; forget old records.

    May be called while runs are at work. A service does the same by itself.

    Example: sluice prune --dry-run
    """
    from service.cli.display import megabytes
    from service.disk.pruning import prune as throw_away
    from service.disk.records import forget
    from service.disk.space import space
    from service.store import open_store

    terminal = Terminal.open(as_json=as_json)
    with explained():
        settings = settings_of(context)
        store = open_store(settings.database)
        pruned, forgotten, there = throw_away(store, settings, dry_run=dry_run), forget(store, settings, dry_run=dry_run), space(settings)
    if as_json:
        records = {"forgotten": dict(forgotten.counts), "database": forgotten.bytes}
        terminal.json({"dry_run": dry_run, **pruned.as_json(), **records, "free": there.free})
        return
    for title, items in (("Would go" if dry_run else "Gone", pruned.gone), ("Stays", pruned.left)):
        if items:
            terminal.out.print(_sheet(title, items))
    done = "would be freed" if dry_run else "freed"
    terminal.out.print(f"{megabytes(pruned.freed)} {done}, {megabytes(pruned.stays)} in use, {megabytes(there.free)} free on the disk")
    would = "would be forgotten" if dry_run else "forgotten"
    terminal.out.print(f"{forgotten.told} {would}, {megabytes(forgotten.bytes)} in the database")


def _sheet(title: str, items: "Iterable[Told]") -> "Sheet":
    """One row for each reason."""
    from rich.markup import escape

    from service.cli.display import megabytes
    from service.cli.sheet import Column, Sheet, figures

    counts, sizes = Counter[str](), Counter[str]()
    for item in items:
        counts[item.why] += 1
        sizes[item.why] += item.bytes
    table = Sheet(title=title, columns=[Column(heading="because", prose=True), *figures("things", "on disk")])
    for why, count in counts.items():
        table.add(escape(why), str(count), megabytes(sizes[why]))
    return table
