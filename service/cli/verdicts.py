"""`sluice gates` and `sluice waive`: how each gate of a run came out, and setting one aside."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from config.errors import ConfigurationError
from config.near import hint
from service.cli.context import Terminal, command_again, explained, operations_of, verdict_code
from service.cli.options import AsJson, RunNumber, spread
from service.cli.sheet import Column, Sheet, names

if TYPE_CHECKING:
    from service.runs.gates import GateView, RunGates, VariantGates

_STATES = {
    "applied": "",
    "pending": " (counts when the run is carried out again and the gate comes out as it did)",
    "withdrawn": " (withdrawn; no longer counts when the run is carried out again)",
}
_OUTCOMES = {"passed": "[green]passed[/]", "failed": "[red]failed[/]", "error": "[red]error[/]"}


def gates(
    context: typer.Context,
    run_id: RunNumber,
    variant: Annotated[list[str] | None, typer.Option(help="Show this variant's gates only, by its tag; repeatable.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Show only the gates that did not pass, or were waived.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show every gate of a run: condition, value with its error, outcome, reason and waiver. The exit code tells how the run ended.

    Example: sluice gates 12 --failed --variant IQ1_S
    """
    terminal = Terminal.open(as_json=as_json)
    with explained():
        operations = operations_of(context)
        found = chosen(operations.gates(run_id), variant or (), failed=failed)
        code = verdict_code(operations.run(run_id).model_dump(mode="json"))
    if as_json:
        terminal.json(found.model_dump(mode="json"))
    else:
        show_gates(terminal.out, found, failed=failed)
    raise typer.Exit(code)


def chosen(found: "RunGates", tags: Sequence[str], *, failed: bool) -> "RunGates":
    """The gates of variants with these tags, or of all, and only those that did not pass where `failed` is wanted. Raises ConfigurationError."""
    known = [item.tag for item in found.variants]
    named = {tag: next((item for item in known if item.casefold() == tag.casefold()), None) for tag in tags}
    if unknown := next((tag for tag, item in named.items() if item is None), None):
        raise ConfigurationError(f"Run {found.run} has judged no variant {unknown!r}.{hint(unknown, known)} Judged are: {', '.join(known) or 'none'}.")
    variants = [item for item in found.variants if not tags or item.tag in named.values()]
    if failed:
        variants = [item.model_copy(update={"gates": [gate for gate in item.gates if gate.outcome != "passed"]}) for item in variants]
        variants = [item for item in variants if item.gates or item.reasons]
    return found.model_copy(update={"variants": variants})


@dataclass(frozen=True, kw_only=True)
class WaiverOptions:
    """What is set aside, by whom and why."""

    gate: Annotated[str, typer.Argument(help="The gate's name, as `sluice gates` shows it.")]
    variant: Annotated[str, typer.Argument(help="The variant's tag, e.g. Q4_K_M.")]
    by: Annotated[str, typer.Option(help="Who decides this; it stands on the card.")]
    comment: Annotated[str, typer.Option(help="Why; it stands on the card.")]


@spread
def waive(
    context: typer.Context,
    run_id: RunNumber,
    waived: WaiverOptions,
    unmeasured: Annotated[bool, typer.Option("--unmeasured", help="Waive a gate that could not be measured at all.")] = False,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Take the waiver back; `--comment` then says why.")] = False,
    as_json: AsJson = False,
) -> None:
    """Set one gate aside for one variant of one run. Card and manifest of what is then published say who did it and why.

    It counts when the run is carried out again, which measures nothing anew. The next release is judged without it.

    Example: sluice waive 12 divergence IQ1_S --by Ada --comment "asked for by its users"
    """
    from service.runs.gates import Decision

    terminal = Terminal.open(as_json=as_json)
    with explained():
        operations = operations_of(context)
        decision = Decision(gate=waived.gate, tag=waived.variant, by=waived.by, comment=waived.comment)
        if withdraw:
            operations.withdraw_waiver(run_id, decision)
        else:
            operations.waive(run_id, decision, unmeasured=unmeasured)
        again = command_again(operations, run_id, context.obj)
    done = "withdrawn" if withdraw else "recorded"
    if as_json:
        terminal.json({"run": run_id, **asdict(waived), "state": done, "next": again})
    else:
        by = "" if again is None else f": [bold]{escape(again)}[/]"
        terminal.out.print(f"{done}. It counts when the run is carried out again{by}", soft_wrap=True)


def show_gates(console: Console, found: "RunGates", *, failed: bool = False) -> None:
    """One table of gates for each variant; below all of them why gates did not pass, and who waived them, each said once."""
    for variant in found.variants:
        if variant.gates:
            console.print(_table(variant))
        else:
            console.print(f"[bold]{escape(variant.tag)}[/]: {variant.verdict or 'not judged'}")
    remarks: dict[str, list[str]] = {}
    for variant in found.variants:
        for line in [line for gate in variant.gates for line in _remarks(gate)] or ([] if variant.gates else variant.reasons):
            remarks.setdefault(line, []).append(variant.tag)
    for line, tags in remarks.items():
        who = f"all {len(tags)} variants" if len(tags) == len(found.variants) > 1 else ", ".join(tags)
        console.print(f"[bold]{escape(who)}[/], {escape(line)}")
    if not found.variants:
        console.print("every gate passed" if failed else f"run {found.run} has judged no variant yet")


def _table(variant: "VariantGates") -> Sheet:
    columns = [*names("gate", "measurement", "value"), Column(heading="condition", prose=True), Column(heading="outcome", prose=True)]
    table = Sheet(title=f"{escape(variant.tag)}: {variant.verdict or 'not judged'}", columns=columns)
    for gate in variant.gates:
        waived = ", waived" if gate.waiver and gate.waiver.state != "pending" else ""
        outcome = f"{'[red]undecided[/]' if gate.undecided else _OUTCOMES[gate.outcome]}{waived}"
        outcome += f"\nlook {gate.look} of {gate.looks}, n = {gate.n:,}" if gate.look > 1 and gate.n is not None else ""
        table.add(escape(gate.gate), escape(gate.measure), _figure(gate), _condition(gate), outcome)
    return table


def _remarks(gate: "GateView") -> list[str]:
    """Why the gate did not pass, and who set it aside."""
    lines = [] if gate.outcome == "passed" else [f"{gate.gate}: {gate.reason}"]
    if gate.waiver:
        lines.append(f"{gate.gate}: waived by {gate.waiver.by}{_STATES[gate.waiver.state]}: {gate.waiver.comment}")
    return lines


def _condition(gate: "GateView") -> str:
    """The condition, and what it comes to where it is relative."""
    return escape(gate.condition if gate.against is None or gate.limit is None else f"{gate.condition} = {gate.limit:.4g}")


def _figure(gate: "GateView") -> str:
    """The value, and below it its error."""
    if gate.value is None:
        return "—"
    unit = "" if gate.unit in {None, "count", "share", "ratio"} else f" {gate.unit}"
    error = "" if gate.stderr is None else f"\n± {gate.stderr:.2g}"
    return f"{gate.value:.4g}{unit}{error}"
