"""`sluice adopt`: a repo that somebody else's tool filled, and what becomes of its files."""

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from config.errors import ConfigurationError, PublishConflict
from service.cli.context import Exit, Terminal, explained, settings_of
from service.cli.options import AsJson, spread
from service.cli.sheet import Sheet, figures, names

if TYPE_CHECKING:
    from service.release.adopting import Proposal

_FATES = {"removed": "[red]removed[/]", "replaced": "[yellow]replaced[/]", "kept": "[green]kept[/]"}
SHORTEST = 7  # digits of an abbreviated commit


@dataclass(frozen=True, kw_only=True)
class AdoptOptions:
    """Whose publication is to come, and what is agreed to."""

    upstream: Annotated[
        str | None, typer.Option(help="Repo or folder whose publication is to come there; default: by the watch list, else by the repo's card.")
    ] = None
    name: Annotated[str | None, typer.Option(help="Name that a folder is published under; default: the folder's.")] = None
    recipe: Annotated[str | None, typer.Option(help="Recipe of that publication; default: as on the watch list, else `default`.")] = None
    remove: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Remove the files that match, as `*.bin` does; may be given several times. Nothing else goes.")
    ] = None
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Agree without being asked.")] = False
    commit: Annotated[str | None, typer.Option(help="With --yes: agree only to the repo as it was shown, at this commit.")] = None


@spread
def adopt(
    context: typer.Context,
    repo: Annotated[str, typer.Argument(help="Repo on the Hub that publications are to come into, as owner/name.")],
    options: AdoptOptions,
    as_json: AsJson = False,
) -> None:
    """Take over a repo that somebody else's tool filled: show what a publication would keep, replace and remove there, and ask.

    Nothing is changed but the manifest, which records who agreed to what; the next publication does the rest. A file that has changed by then is left alone,
    and the publication refused. What the publication neither replaces nor is told to remove stays, and the manifest lists it as kept.

    Example: sluice adopt acme/Qwen3-0.6B-GGUF --upstream Qwen/Qwen3-0.6B
    """
    from service.hubclient import connect
    from service.release import adopting
    from service.store import open_store

    terminal = Terminal.open(as_json=as_json)
    wish = adopting.Wish(repo=repo, upstream=options.upstream, name=options.name, recipe=options.recipe, remove=tuple(options.remove or ()))
    with explained(resume="nothing was changed"):
        settings = settings_of(context)
        api, store = connect(settings), open_store(settings.database)
        while True:
            proposal = adopting.propose(store, settings, api, wish)
            if proposal.empty or proposal.agreed:
                _tell(terminal, proposal, proposal.head.commit if proposal.agreed else None)
                return
            _agree(terminal, proposal, options)
            commit = adopting.adopt(store, api, proposal)
            if commit is None and options.yes:
                raise PublishConflict(f"{proposal.repo} changed after {proposal.head.commit}. Nothing was adopted. Look at what it holds now, and agree again.")
            if commit is not None:
                _tell(terminal, proposal, commit)
                return
            terminal.out.print(f"[yellow]{escape(proposal.repo)} has changed meanwhile.[/] Nothing was adopted; this is what it holds now:")


def _agree(terminal: Terminal, proposal: "Proposal", options: AdoptOptions) -> None:
    """Show the proposal and have it agreed to. Raises ConfigurationError where nobody can be asked, PublishConflict when it is not what was shown before."""
    if not terminal.as_json:
        show(terminal.out, proposal)
    now = proposal.head.commit or ""
    if options.commit is not None and not (len(options.commit) >= SHORTEST and now.startswith(options.commit.lower())):
        raise PublishConflict(f"{proposal.repo} is at {now}, not at {options.commit}. Nothing was adopted. Look at what it holds now, and agree again.")
    if options.yes:
        return
    if terminal.as_json or not sys.stdin.isatty():
        if terminal.as_json:
            terminal.json(_document(proposal, None))
        raise ConfigurationError(
            f"Nobody can be asked here, so nothing was adopted. Look at what would become of the files, then give --yes --commit {proposal.head.commit}."
        )
    if not typer.confirm("Adopt it on these terms?"):
        terminal.out.print("nothing was adopted")
        raise typer.Exit(Exit.FAILED)


def show(console: Console, proposal: "Proposal") -> None:
    """The files with their sizes and what becomes of them, and what else one should know."""
    from service.amounts import byte_count

    source = proposal.source
    console.print(
        f"[bold]{escape(proposal.repo)}[/] at {(proposal.head.commit or '')[:12]}, for the publication of [bold]{escape(proposal.origin)}[/] "
        f"(known by {escape(source.found)}) by recipe {escape(source.recipe)}",
        soft_wrap=True,
    )
    table = Sheet(columns=[*names(""), *figures("size"), *names("file")])
    for item in sorted(proposal.files, key=lambda item: (tuple(_FATES).index(item.fate), item.path)):
        table.add(_FATES[item.fate], byte_count(item.bytes), escape(item.path))
    console.print(table)
    sizes = {fate: [item.bytes for item in proposal.files if item.fate == fate] for fate in _FATES}
    told = [f"{len(listed)} {fate} ({byte_count(sum(listed))})" for fate, listed in sizes.items() if listed]
    console.print(f"{', '.join(told)}. What is marked as replaced stays until a file of its name is published.", soft_wrap=True)
    for remark in proposal.remarks:
        console.print(f"[yellow]look twice[/] {escape(remark)}", soft_wrap=True)


def _tell(terminal: Terminal, proposal: "Proposal", commit: str | None) -> None:
    if terminal.as_json:
        terminal.json(_document(proposal, commit))
    elif commit is None:
        terminal.out.print(f"{escape(proposal.repo)} holds nothing but what is Sluice's or the Hub's own: there is nothing to adopt.", soft_wrap=True)
    elif proposal.agreed:
        terminal.out.print(f"{escape(proposal.repo)} is adopted on these terms already, and nothing has changed since.", soft_wrap=True)
    else:
        terminal.out.print(
            f"[green]adopted[/] [bold]{escape(proposal.repo)}[/] at {commit[:12]}: the next publication of {escape(proposal.origin)} comes there.",
            soft_wrap=True,
        )


def _document(proposal: "Proposal", commit: str | None) -> dict[str, Any]:
    return {**proposal.as_json(), "adopted": commit}
