"""`sluice releases`: the upstream repos that are watched or known, and how each stands."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from service.cli.context import Terminal, explained, operations_of
from service.cli.options import AsJson, spread
from service.cli.sheet import Column, Sheet, names

if TYPE_CHECKING:
    from service.release.known import UpstreamHead


@dataclass(frozen=True, kw_only=True)
class Which:
    """Which repos are shown."""

    repo: Annotated[str | None, typer.Option(help="Only upstream repos of this name; `*` stands for anything.")] = None
    state: Annotated[str | None, typer.Option(help="Only those whose last run is in this state: queued, running, done, blocked, held, failed, …")] = None
    watched: Annotated[bool | None, typer.Option("--watched/--unwatched", help="Only what the watch list follows, or does not.", show_default=False)] = None
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="So many, by name.")] = 50


@spread
def releases(context: typer.Context, which: Which, as_json: AsJson = False) -> None:
    """List the upstream repos that are watched or known: the commit last seen, the last run, and what is published. Times are UTC.

    Example: sluice releases --repo "Qwen/*" --state failed
    """
    from service.release.known import UpstreamFilter

    terminal = Terminal.open(as_json=as_json)
    with explained():
        wanted = UpstreamFilter(repo=which.repo, state=_state(which.state), watched=which.watched)
        found = operations_of(context).releases(wanted, limit=which.limit)
    if as_json:
        terminal.json([item.model_dump(mode="json") for item in found])
        return
    if not found:
        terminal.out.print("nothing of that kind is watched or was released yet")
        return
    table = Sheet(columns=[*names("upstream", "seen (UTC)", "last run"), Column(heading="published", prose=True)])
    for item in found:
        table.add(escape(item.repo), _seen(item), _run(item), escape(_published(item)))
    terminal.out.print(table)


def _state(given: str | None) -> Any:
    """The state of that name. Raises ConfigurationError."""
    from typing import get_args

    from config.errors import ConfigurationError
    from service.store import RunState

    if given is not None and given not in get_args(RunState):
        raise ConfigurationError(f"There is no state {given!r}. A run is {', '.join(get_args(RunState))}.")
    return given


def _seen(item: "UpstreamHead") -> str:
    if not item.seen:
        return "not yet" if item.watched else "not watched"
    latest = item.seen[0]
    return f"{escape(latest.revision)} {latest.sha[:12]}, {latest.at:%Y-%m-%d %H:%M}"


def _run(item: "UpstreamHead") -> str:
    return "none" if item.run is None else f"{item.run.run} {item.run.state} {item.run.release.sha[:12]}"


def _published(item: "UpstreamHead") -> str:
    return ", ".join(f"{current.repo} of {current.sha[:12]}" for current in item.published) or "nothing"
