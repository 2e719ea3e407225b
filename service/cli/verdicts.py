"""`sluice gates` and `sluice waive`: how each gate of a run came out, and setting one aside."""

import shlex
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from service.cli.context import Terminal, explained, settings_of, verdict_code
from service.runs.gates import Decision, GateView, RunGates, gates_of
from service.runs.gates import waive as record_waiver
from service.runs.gates import withdraw as withdraw_waiver
from service.runs.summary import summary
from service.store import Store, open_store

_STATES = {
    "applied": "",
    "pending": " (counts when the run is carried out again and the gate comes out as it did)",
    "withdrawn": " (withdrawn; no longer counts when the run is carried out again)",
}
_OUTCOMES = {"passed": "[green]passed[/]", "failed": "[red]failed[/]", "error": "[red]error[/]"}

Run = Annotated[int, typer.Argument(metavar="RUN", help="Number of a run, as `sluice status` lists it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output, and nothing else there.")]


def gates(context: typer.Context, run_id: Run, as_json: AsJson = False) -> None:
    """Show every gate of a run: condition, value with its error, outcome, reason and waiver. The exit code tells how the run ended."""
    terminal = Terminal.open(as_json=as_json)
    with explained():
        store = open_store(settings_of(context).database)
        found = gates_of(store, run_id)
        code = verdict_code(summary(store, run_id))
    if as_json:
        terminal.json(found.model_dump(mode="json"))
    else:
        show_gates(terminal.out, found)
    raise typer.Exit(code)


def waive(
    context: typer.Context,
    run_id: Run,
    gate: Annotated[str, typer.Argument(help="The gate's name, as `sluice gates` shows it.")],
    variant: Annotated[str, typer.Argument(help="The variant's tag, e.g. Q4_K_M.")],
    by: Annotated[str, typer.Option(help="Who decides this; it stands on the card.")],
    comment: Annotated[str, typer.Option(help="Why; it stands on the card.")],
    unmeasured: Annotated[bool, typer.Option("--unmeasured", help="Waive a gate that could not be measured at all.")] = False,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Take the waiver back; `--comment` then says why.")] = False,
    as_json: AsJson = False,
) -> None:
    """Set one gate aside for one variant of one run. Card and manifest of what is then published say who did it and why.

    It counts when the run is carried out again, which measures nothing anew. The next release is judged without it.
    """
    terminal = Terminal.open(as_json=as_json)
    with explained():
        store = open_store(settings_of(context).database)
        decision = Decision(gate=gate, tag=variant, by=by, comment=comment)
        if withdraw:
            withdraw_waiver(store, run_id, decision)
        else:
            record_waiver(store, run_id, decision, unmeasured=unmeasured)
        again = command_again(store, run_id)
    done = "withdrawn" if withdraw else "recorded"
    if as_json:
        document: dict[str, Any] = {"run": run_id, "gate": gate, "variant": variant, "by": by, "comment": comment, "state": done, "next": again}
        terminal.json(document)
    else:
        terminal.out.print(f"{done}. It counts when the run is carried out again: [bold]{escape(again)}[/]", soft_wrap=True)


def command_again(store: Store, run_id: int) -> str:
    """The command that carries the run out again."""
    run = store.run(run_id)
    return shlex.join(["sluice", "run", run.release.repo, "--revision", run.release.sha, "--recipe", run.recipe])


def show_gates(console: Console, found: RunGates) -> None:
    """One table of gates for each variant, with reasons of what did not pass below it."""
    for variant in found.variants:
        table = Table(title=f"{escape(variant.tag)}: {variant.verdict or 'not judged'}", title_justify="left", box=box.SIMPLE_HEAD, padding=0)
        for heading in ("gate", "measurement", "value", "condition", "outcome"):
            table.add_column(heading, overflow="fold")
        for gate in variant.gates:
            outcome = (
                f"{'[red]undecided[/]' if gate.undecided else _OUTCOMES[gate.outcome]}{', waived' if gate.waiver and gate.waiver.state != 'pending' else ''}"
            )
            outcome += f"\nlook {gate.look} of {gate.looks}, n = {gate.n:,}" if gate.look > 1 and gate.n is not None else ""
            table.add_row(escape(gate.gate), escape(gate.measure), _figure(gate), _condition(gate), outcome)
        console.print(table)
        for gate in variant.gates:
            for line in _remarks(gate):
                console.print(escape(line), soft_wrap=True)
        if not variant.gates and variant.reasons:
            console.print(escape(" ".join(variant.reasons)), soft_wrap=True)
    if not found.variants:
        console.print(f"run {found.run} has judged no variant yet")


def _remarks(gate: GateView) -> list[str]:
    """Why the gate did not pass, and who set it aside."""
    lines = [] if gate.outcome == "passed" else [f"{gate.gate}: {gate.reason}"]
    if gate.waiver:
        lines.append(f"{gate.gate}: waived by {gate.waiver.by}{_STATES[gate.waiver.state]}: {gate.waiver.comment}")
    return lines


def _condition(gate: GateView) -> str:
    """The condition, and what it comes to where it is relative."""
    return escape(gate.condition if gate.against is None or gate.limit is None else f"{gate.condition} = {gate.limit:.4g}")


def _figure(gate: GateView) -> str:
    if gate.value is None:
        return "—"
    error = "" if gate.stderr is None else f" ± {gate.stderr:.4g}"
    unit = "" if gate.unit in {None, "count", "share", "ratio"} else f" {gate.unit}"
    return f"{gate.value:.4g}{error}{unit}"
