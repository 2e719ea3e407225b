"""`sluice token`: bearer tokens of the service's own API."""

from typing import Annotated

import typer

from service.cli.context import explained, settings_of

app = typer.Typer(help="Bearer tokens of the API. There are none until you create one, and the API answers nobody without.", no_args_is_help=True)


@app.command("create")
def create(context: typer.Context, name: Annotated[str, typer.Argument(help="What the token is for; shown in the audit trail.")]) -> None:
    """Create a token and print it. It is shown this once and stored only as a hash.

    Example: sluice token create build-server
    """
    from service.api.tokens import create_token
    from service.store import open_store

    with explained():
        typer.echo(create_token(open_store(settings_of(context).database), name))


@app.command("list")
def show(context: typer.Context) -> None:
    """List the tokens' names and dates.

    Example: sluice token list
    """
    from service.api.tokens import list_tokens
    from service.store import open_store

    with explained():
        for token in list_tokens(open_store(settings_of(context).database)):
            typer.echo(f"{token.name}\t{token.created:%Y-%m-%d}{'' if token.revoked is None else ' revoked'}")


@app.command("revoke")
def revoke(context: typer.Context, name: Annotated[str, typer.Argument(help="Name of the token.")]) -> None:
    """Make a token useless from now on.

    Example: sluice token revoke build-server
    """
    from service.api.tokens import revoke_token
    from service.store import open_store

    with explained():
        revoke_token(open_store(settings_of(context).database), name)
