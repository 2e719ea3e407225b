"""`sluice token`: bearer tokens of the service's own API."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.context import Terminal, explained, operations_of, settings_of
from service.cli.options import AsJson, spread

if TYPE_CHECKING:
    from service.store.access import Grant

SCOPES = ("read", "operate", "publish", "admin")

app = typer.Typer(help="Bearer tokens of the API. There are none until you create one, and the API answers nobody without.", no_args_is_help=True)


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """What a token may do, and for how long."""

    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="What it may do besides reading: `operate` (queue and steer runs), `publish` (approve, waive, publish, unpublish), "
            "`admin` (all that; without --namespace also audit trail, tokens and watch list), or `read` alone. Repeatable; default: admin."
        ),
    ] = None
    namespace: Annotated[list[str] | None, typer.Option(help="Only runs that publish under this account or organization. Repeatable; default: all.")] = None
    days: Annotated[float | None, typer.Option(min=0, help="After which it stops working; default: never.")] = None

    def grant(self) -> "Grant":
        """The same as it is kept. Raises ConfigurationError for a scope that there is not."""
        from datetime import UTC, datetime, timedelta
        from typing import cast

        from config.errors import ConfigurationError
        from config.near import hint
        from service.store import Scope
        from service.store.access import Grant

        if unknown := next((scope for scope in self.scope or () if scope not in SCOPES), None):
            raise ConfigurationError(f"There is no scope {unknown!r}.{hint(unknown, list(SCOPES))} Scopes are: {', '.join(SCOPES)}.")
        expires = None if self.days is None else datetime.now(UTC) + timedelta(days=min(self.days, 36_500))
        scopes = cast("tuple[Scope, ...]", tuple(scope for scope in SCOPES if scope in (self.scope or ("admin",))))
        return Grant(scopes=scopes, namespaces=tuple(self.namespace) if self.namespace else None, expires=expires)


@app.command("create")
@spread
def create(context: typer.Context, name: Annotated[str, typer.Argument(help="What the token is for; shown in the audit trail.")], allowed: Allowed) -> None:
    """Create a token and print it. It is shown this once and stored only as a hash.

    Example: sluice token create build-server --scope operate --days 90
    """
    from service.api.tokens import create_token
    from service.store import open_store

    with explained():
        typer.echo(create_token(open_store(settings_of(context).database), name, allowed.grant()))


@app.command("list")
def show(context: typer.Context, as_json: AsJson = False) -> None:
    """List the tokens: what each may do, when it was made and last used, and whether it still works. Times are UTC.

    Example: sluice token list
    """
    from rich.markup import escape

    from service.cli.sheet import Sheet, names

    terminal = Terminal.open(as_json=as_json)
    with explained():
        found = operations_of(context).tokens()
    if as_json:
        terminal.json([token.model_dump(mode="json") for token in found])
        return
    if not found:
        terminal.out.print("no tokens yet; make one with [bold]sluice token create NAME[/]")
        return
    table = Sheet(columns=names("token", "scopes", "namespaces", "created (UTC)", "last used (UTC)", "works"))
    for token in found:
        until = "revoked" if token.revoked else "until revoked" if token.expires is None else f"until {token.expires:%Y-%m-%d %H:%M} UTC"
        works = until if token.works or token.revoked else "expired"
        used = "never" if token.used is None else f"{token.used:%Y-%m-%d %H:%M}"
        table.add(escape(token.name), " ".join(token.scopes), escape(" ".join(token.namespaces or ("all",))), f"{token.created:%Y-%m-%d}", used, works)
    terminal.out.print(table)


@app.command("revoke")
def revoke(context: typer.Context, name: Annotated[str, typer.Argument(help="Name of the token.")]) -> None:
    """Make a token useless from now on.

    Example: sluice token revoke build-server
    """
    from service.api.tokens import revoke_token
    from service.store import open_store

    with explained():
        revoke_token(open_store(settings_of(context).database), name)
