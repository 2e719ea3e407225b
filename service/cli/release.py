"""`sluice release`, and `sluice run`, which is the same: one release, now."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.context import Terminal, explained, settings_anywhere, settings_of, verdict_code
from service.cli.elsewhere import release_there
from service.cli.options import AsJson, spread

if TYPE_CHECKING:
    from config.settings import Settings
    from service.release.intake import ReleaseRequest


@dataclass(frozen=True, kw_only=True)
class What:
    """What is released, and by which recipe."""

    what: Annotated[
        str, typer.Argument(metavar="WHAT", help="Upstream repo on the Hub, as owner/name or the address of its page; or a folder of this machine.")
    ]
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit to release; default: main.")] = None
    name: Annotated[str | None, typer.Option(help="Name to publish a folder under; default: the folder's.")] = None
    recipe: Annotated[str, typer.Option(help="Recipe: a name from config/recipes, or the path of a .yaml file.")] = "default"
    variants: Annotated[str | None, typer.Option(help="Only these variants, e.g. Q4_K_M,UD-Q4_K_XL,bnb-4bit; in any case.")] = None
    quick: Annotated[bool, typer.Option("--quick", help="Measure on small samples. Card, verdicts and tables say so.")] = False


@dataclass(frozen=True, kw_only=True)
class Where:
    """Where it goes."""

    to: Annotated[Path | None, typer.Option(help="Leave the repos as folders in this one, and publish nothing: needs no account and no Hub.")] = None
    namespace: Annotated[str | None, typer.Option(help="Account or organization to publish under; default: as in the settings, else the token's account.")] = (
        None
    )
    private: Annotated[bool, typer.Option("--private", help="Publish as private.")] = False


@dataclass(frozen=True, kw_only=True)
class How:
    """How it is gone about."""

    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be built and published, what it needs, and what would refuse it; build nothing.")
    ] = False
    fixes_as_pr: Annotated[bool, typer.Option("--fixes-as-pr", help="Offer the fixes to the upstream as a pull request, whoever's it is.")] = False
    redo: Annotated[
        list[str] | None, typer.Option(metavar="STAGE", help="Do this stage again although what it made is kept, as `sluice stages` names it; repeatable.")
    ] = None


@spread
def release(
    context: typer.Context,
    what: What,
    where: Where,
    how: How,
    as_json: AsJson = False,
) -> None:
    """Release one upstream repo or folder now: fix, build, measure, judge, publish what passes.

    The same command again goes on where an interrupted run stopped, and publishes nothing new when nothing changed.

    Example: sluice release ./my-model --to ./repos --quick
    """
    from service.cli.display import progress, show_run
    from service.cli.preview import outset, show
    from service.release import foreground
    from service.release.dry_run import plan

    terminal = Terminal.open(as_json=as_json)
    with explained():
        if settings_anywhere(context).server is not None:
            release_there(context, terminal, what, where, how)
        settings = _settings(context, where, how)
        wanted = _wanted(settings, what, where, how)
        if how.dry_run:
            planned = plan(settings, wanted)
            terminal.json(planned.as_json()) if as_json else show(terminal.out, planned)
            return
        with progress(terminal.progress, line_seconds=settings.progress_seconds) as listener:
            tell = partial(outset, terminal.progress)
            result = foreground.run(settings, wanted, listener, tell, redo=how.redo or ())
    if as_json:
        terminal.json(result)
    else:
        show_run(terminal.out, result)
        _say_next(terminal, context, result)
    raise typer.Exit(verdict_code(result))


def _settings(context: typer.Context, where: Where, how: How) -> "Settings":
    """The settings, with what the command says otherwise."""
    settings = settings_of(context)
    if how.fixes_as_pr:
        settings = settings.with_(fixes_as_pr="always")
    return settings.with_(namespace=where.namespace or settings.namespace, private=where.private or settings.private)


def _wanted(settings: "Settings", what: What, where: Where, how: How) -> "ReleaseRequest":
    """The release, the recipe and where it goes. Raises ConfigurationError."""
    from config.errors import ConfigurationError
    from service.release.intake import ReleaseRequest
    from service.release.own_recipe import recipe_for
    from service.release.what import meant

    if where.private and where.to is not None:
        raise ConfigurationError("A folder is as private as its place on the disk, so --private says nothing with --to. Leave out one of the two.")
    if how.fixes_as_pr and where.to is not None:
        raise ConfigurationError("Fixes are offered by a run that publishes on the Hub. Leave out --to or --fixes-as-pr.")
    found = meant(what.what, endpoint=settings.hub_endpoint, revision=what.revision, name=what.name)
    if how.fixes_as_pr and found.folder is not None:
        raise ConfigurationError(f"{what.what} is a folder, to which no pull request can be made. Leave out --fixes-as-pr.")
    variants = () if what.variants is None else what.variants.split(",")
    recipe = recipe_for(settings, what.recipe, variants=variants, quick=what.quick)
    target = None if where.to is None else str(where.to.expanduser().resolve())
    return ReleaseRequest(repo=found.repo, revision=found.revision, recipe=recipe, trigger="command", folder=found.folder, target=target)


def _say_next(terminal: Terminal, context: typer.Context, result: dict[str, object]) -> None:
    from service.cli.afterwards import commands

    for line in commands(result, config=context.obj):
        terminal.out.print(line, soft_wrap=True)
