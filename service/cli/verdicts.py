"""`sluice gates` and `sluice waive`: how each gate of a run came out, and setting one aside."""

import shlex
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from service.cli.context import Terminal, explained, settings_of, verdict_code
from service.cli.options import AsJson, RunNumber, spread

if TYPE_CHECKING:
    from service.runs.gates import GateView, RunGates
    from service.store import Store

_STATES = {
    "applied": "",
    "pending": " (counts when the run is carried out again and the gate comes out as it did)",
    "withdrawn": " (withdrawn; no longer counts when the run is carried out again)",
}
_OUTCOMES = {"passed": "[green]passed[/]", "failed": "[red]failed[/]", "error": "[red]error[/]"}


def gates(context: typer.Context, run_id: RunNumber, as_json: AsJson = False) -> None:
    """Show every gate of a run: condition, value with its error, outcome, reason and waiver. The exit code tells how the run ended."""
    from service.runs.gates import gates_of
    from service.runs.summary import summary
    from service.store import open_store

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
    """
    from service.runs import gates as recorded
    from service.store import open_store

    terminal = Terminal.open(as_json=as_json)
    with explained():
        store = open_store(settings_of(context).database)
        decision = recorded.Decision(gate=waived.gate, tag=waived.variant, by=waived.by, comment=waived.comment)
        if withdraw:
            recorded.withdraw(store, run_id, decision)
        else:
            recorded.waive(store, run_id, decision, unmeasured=unmeasured)
        again = command_again(store, run_id)
    done = "withdrawn" if withdraw else "recorded"
    if as_json:
        terminal.json({"run": run_id, **asdict(waived), "state": done, "next": again})
    else:
        terminal.out.print(f"{done}. It counts when the run is carried out again: [bold]{escape(again)}[/]", soft_wrap=True)


def command_again(store: "Store", run_id: int) -> str:
    """The command that carries the run out again."""
    run = store.run(run_id)
    taken = ["release", run.folder, "--name", run.release.name] if run.folder is not None else ["run", run.release.repo, "--revision", run.release.sha]
    left = ["--to", run.target] if run.target is not None else []
    offered = ["--fixes-as-pr"] if run.fixes_as_pr else []
    return shlex.join(["sluice", *taken, "--recipe", run.recipe, *left, *offered])


def show_gates(console: Console, found: "RunGates") -> None:
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
    if gate.value is None:
        return "—"
    error = "" if gate.stderr is None else f" ± {gate.stderr:.4g}"
    unit = "" if gate.unit in {None, "count", "share", "ratio"} else f" {gate.unit}"
    return f"{gate.value:.4g}{error}{unit}"
