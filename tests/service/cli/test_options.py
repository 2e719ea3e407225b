"""Dataclasses of options, as typer sees them and as a command is given them."""

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from service.cli.options import spread


@dataclass(frozen=True, kw_only=True)
class Paint:
    """Options that belong together."""

    colour: Annotated[str, typer.Argument(help="Its name.")]
    coats: Annotated[int, typer.Option("--layers", min=1, help="How often.")] = 2
    dry: Annotated[bool, typer.Option(help="Wait for it.")] = True


given: list[object] = []
app = typer.Typer(add_completion=False)


@app.command()
@spread
def paint(
    context: typer.Context,
    house: Annotated[str, typer.Argument()],
    paint: Paint,
    note: Annotated[str | None, typer.Option(help="For the painter.")] = None,
) -> None:
    """Paint a house."""
    given[:] = [context.info_name, house, paint, note]


def test_a_command_is_given_the_dataclass() -> None:
    done = CliRunner().invoke(app, ["ours", "red"])
    assert (done.exit_code, given) == (0, ["paint", "ours", Paint(colour="red"), None])
    done = CliRunner().invoke(app, ["ours", "red", "--layers", "3", "--no-dry", "--note", "soon"])
    assert (done.exit_code, given) == (0, ["paint", "ours", Paint(colour="red", coats=3, dry=False), "soon"])


def test_help_shows_the_options_in_the_order_in_which_they_stand() -> None:
    told = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "120"}).stdout
    places = [told.index(words) for words in ("Paint a house.", "Its name.", "--layers", "How often.", "[default: 2]", "--no-dry", "--note")]
    assert places == sorted(places)


@pytest.mark.parametrize(("arguments", "words"), [(["ours"], "colour"), (["ours", "red", "--layers", "0"], "--layers")])
def test_wrong_usage_is_told_as_of_any_option(arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert words in done.stderr
