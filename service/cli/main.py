"""The root of the `sluice` command: options common to all, and the list of commands."""

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from service.cli import demo, doctor, hub, measure, plan, report, runs, serve, stages, tokens, verdicts

app = typer.Typer(
    name="sluice",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,  # locals may hold a token
    rich_markup_mode="rich",
    help="""Watches model releases, repairs them, builds quantized variants, measures each against the 16-bit model, and publishes only what passes its gates.

Exit codes: [bold]0[/] done, [bold]1[/] failed, [bold]2[/] wrong usage or settings,
[bold]3[/] done, and something was blocked by a gate or a check found failures.

Start with [bold]sluice demo[/]: it needs no account and no network.""",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sluice {version('sluice')}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", envvar="SLUICE_CONFIG", help="Settings file; default: ./sluice.yaml when there is one.")
    ] = None,
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")] = False,
) -> None:
    """Keep the settings file's path for the command that follows."""
    context.obj = config


app.command("demo")(demo.demo)
app.command("run")(runs.run)
app.command("status")(runs.status)
app.command("stages")(stages.stages)
app.command("report")(report.report)
app.command("gates")(verdicts.gates)
app.command("waive")(verdicts.waive)
app.command("plan")(plan.plan)
app.command("quantize")(plan.quantize)
app.command("serve")(serve.serve)
app.command("doctor")(doctor.doctor)
app.add_typer(measure.app, name="measure")
app.add_typer(hub.app, name="hub")
app.add_typer(tokens.app, name="token")


def main() -> None:
    """Entry point."""
    app()
