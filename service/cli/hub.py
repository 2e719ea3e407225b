"""`sluice hub`: the embedded Hub."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from config.errors import SluiceError
from hub.errors import BadRequest, RootError
from service.cli.context import explained

app = typer.Typer(help="The embedded Hub: a model hub on a folder of this machine that the stock Hugging Face client can use.", no_args_is_help=True)

Root = Annotated[Path, typer.Option(help="Folder that holds the Hub's repos.")]


@app.command("serve")
def serve(
    root: Root,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 picks a free one.")] = 8090,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Serve the folder until Ctrl-C. Point clients at it with HF_ENDPOINT and HF_HUB_DISABLE_XET=1.

    Example: sluice hub serve --root ./hub --port 8090
    """
    from hub.server import serve as serve_hub

    with explained(signals=False), in_our_words():
        serve_hub(root, host=host, port=port, ready=lambda url: typer.echo(f"embedded Hub at {url}"))


@app.command("token")
def token(
    root: Root,
    user: Annotated[str, typer.Option(help="Account that the token belongs to.")],
    scope: Annotated[str, typer.Option(help="read or write.")] = "write",
    org: Annotated[list[str] | None, typer.Option(help="Organization that the account may write to; may be given several times.")] = None,
) -> None:
    """Create a token of the embedded Hub and print it, once.

    Example: sluice hub token --root ./hub --user ada --org acme
    """
    from hub.tokens import create_token

    if scope not in {"read", "write"}:
        raise typer.BadParameter("must be read or write", param_hint="--scope")
    with explained(), in_our_words():
        typer.echo(create_token(root, user=user, scope="read" if scope == "read" else "write", orgs=org or ()))


@contextmanager
def in_our_words() -> Iterator[None]:
    """The embedded Hub knows none of our modules, so its errors are not ours."""
    try:
        yield
    except (RootError, BadRequest) as error:
        raise SluiceError(str(error)) from error
