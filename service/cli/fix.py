"""`sluice fix`: a model repaired, and nothing else made of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape

from service.cli.context import Exit, Terminal, explained, settings_of
from service.cli.options import AsJson, spread

if TYPE_CHECKING:
    from service.repairing import Repaired

LONGEST = 60  # characters of a value that a line shows


@dataclass(frozen=True, kw_only=True)
class RepairOptions:
    """What is done with what was found."""

    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", file_okay=False, help="Folder for the repaired model; the model's own changes it in place. Default: beside it, -fixed."),
    ] = None
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be repaired: exit code 3 when something would.")] = False
    diff: Annotated[bool, typer.Option("--diff", help="Show the changes as a unified diff as well.")] = False
    system_prompt: Annotated[
        Literal["keep", "remove"],
        typer.Option("--system-prompt", help="What becomes of one that the chat template writes where a conversation has none, as in a recipe."),
    ] = "keep"


@spread
def fix(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Folder with config, tokenizer and weights, owner/name on the Hub, or the address of its page.")],
    do: RepairOptions,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a repo; default: its main branch.")] = None,
    as_json: AsJson = False,
) -> None:
    """Repair a model's config, tokenizer and chat template, and write it whole to a folder of its own. Nothing else is made of it.

    A folder stays as it is unless -o names it, and of a model that needs no repair nothing is written unless -o names a place: its copy is then
    the same byte for byte. Of a repo, weights are fetched only when it is to be written. Exit code 3 when something is wrong that no rule can repair.

    Example: sluice fix ./my-model --dry-run --diff
    """
    from service import repairing
    from service.cli.display import progress

    terminal = Terminal.open(as_json=as_json)
    with explained(resume="start the same command again"):
        settings = settings_of(context)
        source = repairing.source_of(settings, model, revision)
        target = None if do.dry_run else repairing.target_of(source, do.out)
        with (
            progress(terminal.err, line_seconds=settings.progress_seconds) as listener,
            repairing.repaired(settings, source, listener, do.system_prompt) as found,
        ):
            whole = source.upstream is not None  # an adapter is no model before it is merged
            wanted = target is not None and bool(found.patches or whole or (do.out and not repairing.in_place(source, target)))
            if target is not None and wanted:
                repairing.write(settings, found, target, listener)
            written = target if wanted else None
            shown = repairing.difference(found) if do.diff else ""
            if as_json:
                terminal.json({**repairing.document(found, written), **({"diff": shown} if do.diff else {})})
            else:
                _show(terminal, found, written, shown, dry_run=do.dry_run)
            wrong = found.unrepaired or (do.dry_run and found.patches)
    raise typer.Exit(Exit.BLOCKED if wrong else Exit.DONE)


def _show(terminal: Terminal, found: "Repaired", written: Path | None, shown: str, *, dry_run: bool) -> None:
    """The patches with file, key and reason, then what is not repaired, and where the model is."""
    out, name = terminal.out, escape(found.source.name)
    out.print(f"[bold]{name}[/]: {'of no known family' if found.family is None else f'of the family {escape(found.family)}'}", soft_wrap=True)
    for (rule, reason), patches in _by_reason(found.patches).items():
        out.print(f"[bold]{escape(rule)}[/]: {escape(reason)}")
        for patch in patches:
            key = f" {patch['key']}" if patch["key"] else ""
            out.print(f"  [cyan]{escape(patch['file'] + key)}[/]: {escape(_value(patch['before']))} → {escape(_value(patch['after']))}", soft_wrap=True)
    for sentence in found.unrepaired:
        out.print(f"[red]not repaired[/] {escape(sentence)}", soft_wrap=True)
    if shown:
        out.print(shown, markup=False, end="", soft_wrap=True)
    count = f"{len(found.patches)} change{'' if len(found.patches) == 1 else 's'}"
    if not found.patches:
        what = "same" if found.source.upstream is None else "merged"
        out.print("nothing to repair" + (f"; the {what} model is in [bold]{escape(str(written))}[/]" if written else ""), soft_wrap=True)
    elif dry_run:
        out.print(f"{count} to make; nothing was written", soft_wrap=True)
    else:
        out.print(f"{count} made; the repaired model is in [bold]{escape(str(written))}[/]", soft_wrap=True)


def _by_reason(patches: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """The patches by rule and reason, which several files often share."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for patch in patches:
        found.setdefault((patch["fix"], patch["reason"]), []).append(patch)
    return found


def _value(value: object) -> str:
    """A value in a few characters."""
    import json

    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
