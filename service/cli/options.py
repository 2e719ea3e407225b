"""Options that commands share or that belong together: a parameter of a dataclass' type stands for one option for each of its fields."""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from typing import Annotated, Any, get_type_hints

import typer

from config.wire import LARGEST


def countable(number: int | None) -> int | None:
    """A callback: the number, if anything in the database can have it."""
    if number is not None and not 0 <= number <= LARGEST:
        raise typer.BadParameter(f"nothing has the number {number:,}; they go from 0 to {LARGEST:,}.")
    return number


AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output, and nothing else there.")]
RunNumber = Annotated[int, typer.Argument(metavar="RUN", callback=countable, help="Number of a run, as `sluice status` lists it.")]


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """The command as typer is to see it: where it takes a dataclass, the fields of that, annotated as options or arguments, stand in the dataclass' place."""
    hints = get_type_hints(command, include_extras=True)
    taken = {name: kind for name, kind in hints.items() if isinstance(kind, type) and is_dataclass(kind)}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name in taken:
            parameters += _fields(taken[parameter.name])
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[parameter.name]))

    @wraps(command)
    def called(**values: Any) -> None:
        for name, kind in taken.items():
            values[name] = kind(**{field.name: values.pop(field.name) for field in fields(kind)})
        command(**values)

    # typer reads the one for the options and the other for their types
    vars(called)["__signature__"] = inspect.Signature(parameters)
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return called


def _fields(kind: type[Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(kind)
    ]
