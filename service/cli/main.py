"""The root of the `sluice` command: options common to all, and the list of commands."""

import gc
from pathlib import Path
from typing import Annotated

import typer

from service.cli import deferred, writing

# Where each command is, and the first paragraph of its help, which a test compares: the list is shown without importing any of them.
COMMANDS = {
    "demo": (
        "service.cli.demo:demo",
        "Release the bundled model on an embedded Hub: repair it, build variants, measure them, publish those that pass.",
    ),
    "release": ("service.cli.release:release", "Release one upstream repo or folder now: fix, build, measure, judge, publish what passes."),
    "run": ("service.cli.release:release", "Release one upstream repo or folder now: fix, build, measure, judge, publish what passes."),
    "status": (
        "service.cli.status:status",
        "Show the latest runs, or everything about one. Of one run the exit code tells how it ended, as `sluice run` does.",
    ),
    "stages": (
        "service.cli.stages:stages",
        "Show the stages that a recipe asks for, and what each does. Nothing is run and no Hub is asked.",
    ),
    "report": ("service.cli.report:report", "Say where the report of a run is: one HTML file with every gate, the figures behind it, and plots."),
    "recipe": ("service.cli.recipe:recipe", "Print the recipe that a run was queued with, whatever has become of its file; it can be used again."),
    "gates": (
        "service.cli.verdicts:gates",
        "Show every gate of a run: condition, value with its error, outcome, reason and waiver. The exit code tells how the run ended.",
    ),
    "waive": (
        "service.cli.verdicts:waive",
        "Set one gate aside for one variant of one run. Card and manifest of what is then published say who did it and why.",
    ),
    "approve": (
        "service.cli.approve:approve",
        "Let a held release go on: what `sluice status RUN` shows as proposed is done, and the run is queued again.",
    ),
    "cancel": (
        "service.cli.steering:cancel",
        ("End a run. One that waits ends at once, one at work within seconds; what its finished stages made is kept, and found again when it is tried again."),
    ),
    "pause": (
        "service.cli.steering:pause",
        "Put a run aside. One at work is paused when its stage is done, so that nothing has to be done again.",
    ),
    "resume": ("service.cli.steering:resume", "Let a paused run go on: it gets back its place in the queue."),
    "prioritize": (
        "service.cli.steering:prioritize",
        "Put a run before those with a lower priority. What is at work is not interrupted for it.",
    ),
    "retry": (
        "service.cli.steering:retry",
        "Carry a run out again that has ended. What it made is found again, and waivers that were given since count.",
    ),
    "redo": (
        "service.cli.steering:redo",
        "Carry a run out again that has ended, and do some of its stages anew although what they made is kept.",
    ),
    "logs": ("service.cli.logs:logs", "Print the log of a stage, without secrets. Ctrl-C ends that, not the run."),
    "releases": (
        "service.cli.upstreams:releases",
        "List the upstream repos that are watched or known: the commit last seen, the last run, and what is published. Times are UTC.",
    ),
    "publications": ("service.cli.publications:publications", "List what was published, the newest first. Times are UTC."),
    "republish": (
        "service.cli.publications:republish",
        "Publish again what a run published. What was built and measured is reused, and a repo that holds the same files gets no commit.",
    ),
    "unpublish": (
        "service.cli.publications:unpublish",
        "Make a published repo private, with name and reason on record. It keeps its files.",
    ),
    "watch": ("service.cli.watching:app", "The watch list: what of the Hub is followed, and by which recipe."),
    "recipes": (
        "service.cli.cookbook:app",
        "Recipes apart from any run: which there are, whether a file is one, and what a changed one would build anew.",
    ),
    "audit": (
        "service.cli.audit:audit",
        "Show the audit trail, the newest event last: what happened, by which way, and who did it. Times are UTC.",
    ),
    "rollback": (
        "service.cli.rollback:rollback",
        "Publish the release of an earlier run again, in the place of the newer one that is published now.",
    ),
    "adopt": (
        "service.cli.adopt:adopt",
        "Take over a repo that somebody else's tool filled: show what a publication would keep, replace and remove there, and ask.",
    ),
    "plan": (
        "service.cli.plan:plan",
        (
            "Say in which type each tensor of a model does most good for its bytes, and which KL divergence the mix will have. "
            "Builds nothing that is kept for you."
        ),
    ),
    "quantize": (
        "service.cli.plan:quantize",
        "Write a model as one GGUF file, by default in a mix planned for it.",
    ),
    "fix": (
        "service.cli.fix:fix",
        "Repair a model's config, tokenizer and chat template, and write it whole to a folder of its own. Nothing else is made of it.",
    ),
    "serve": ("service.cli.serve:serve", "Run day and night: poll the watch list, take webhooks, serve the API, and carry out queued runs."),
    "prune": (
        "service.cli.prune:prune",
        "Throw away outputs of stages that nobody needs any more, as the settings under `keep` say, and tell why each of the others stays; forget old records.",
    ),
    "doctor": (
        "service.cli.doctor:doctor",
        "Report versions, tools, disk, memory, GPU and Hub login. Exit code 1 when something that Sluice needs is missing.",
    ),
    "backup": (
        "service.cli.backup:backup",
        "Copy the database of runs, verdicts, waivers, approvals and publications to one file, also while a service works.",
    ),
    "measure": ("service.cli.measure:app", "Measure models of your own: nothing is built, kept or published."),
    "family": ("service.cli.family:app", "Families of models: whether what a file says about one is true."),
    "data": ("service.cli.data:app", "The texts and questions that a recipe names: what they are, and fetching those that are on the Hub."),
    "hub": ("service.cli.hub:app", "The embedded Hub: a model hub on a folder of this machine that the stock Hugging Face client can use."),
    "notify": ("service.cli.notify:app", "The places that are told how runs end: trying one, and what was sent."),
    "token": ("service.cli.tokens:app", "Bearer tokens of the API. There are none until you create one, and the API answers nobody without."),
}

app = typer.Typer(
    name="sluice",
    cls=deferred.group(COMMANDS),
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # locals may hold a token
    rich_markup_mode="rich",
    help="""Watches model releases, repairs them, builds quantized variants, measures each against the 16-bit model, and publishes only what passes its gates.

Exit codes: [bold]0[/] done, [bold]1[/] failed or superseded, [bold]2[/] wrong usage or settings,
[bold]3[/] done, and something was blocked by a gate or a check found failures, [bold]4[/] held until a person approves it.

Start with [bold]sluice demo[/]: it needs no account and no network.""",
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

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


def main() -> None:
    """Entry point."""
    gc.set_threshold(50_000, 20, 20)  # what commands import lives to their end: looking through it again and again takes a tenth of a short one
    writing.prepare()
    app()
