"""How the help of commands reads: arguments and what options take in capitals, and nothing beside a flag, which takes nothing."""

from pathlib import Path
from typing import Any, get_args

from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption


class Command(TyperCommand):
    """A command whose help is written as people expect it."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Arguments and options, those included that typer adds."""
        return [_tidy(param) for param in super().get_params(ctx)]

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The words of the usage line after the command's name."""
        return _usage(self, ctx)


class Group(TyperGroup):
    """A group of commands, likewise."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Options, those included that typer adds."""
        return [_tidy(param) for param in super().get_params(ctx)]

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The words of the usage line after the group's name."""
        return [*_usage(self, ctx), self.subcommand_metavar]


def _tidy(param: Any) -> Any:
    if isinstance(param, TyperArgument):
        param.metavar = param.metavar or param.name.upper() + ("..." if param.nargs != 1 else "")
        vars(param)["display_type_rich"] = _untold  # its name says what it is
    elif isinstance(param, TyperOption):
        param.metavar = "" if param.is_flag else param.metavar or _taken(param.type_descriptor.annotation)
    return param


def _untold(ctx: Any) -> None:
    return None


def _taken(annotation: Any) -> str:
    """What an option takes, in a word."""
    kinds = {annotation, *get_args(annotation)}
    return "PATH" if Path in kinds else "NUMBER" if kinds & {int, float} else "TEXT"


def _usage(command: TyperCommand | TyperGroup, ctx: Any) -> list[str]:
    arguments = [param for param in command.get_params(ctx) if isinstance(param, TyperArgument) and not param.hidden]
    named = [(str(param.metavar), param.required) for param in arguments]
    return [command.options_metavar or "", *(name if required or name.startswith("[") else f"[{name}]" for name, required in named)]
