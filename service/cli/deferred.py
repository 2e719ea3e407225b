"""Commands whose modules are imported when they are called: to list them costs nothing of what they need."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

from service.cli.usage import Command, Group


class Deferred(Command):
    """A command, or a group of commands, of which only name and summary are known until it is called."""

    def __init__(self, name: str, target: str, summary: str) -> None:
        """`target` is where it is, as `module:name`, a function or a `typer.Typer`."""
        super().__init__(name, help=summary)
        self._target = target

    def load(self) -> Any:
        """The command itself, imported now."""
        module, _, name = self._target.partition(":")
        found, holder = getattr(import_module(module), name), typer.Typer()
        if isinstance(found, typer.Typer):
            for info in found.registered_commands:
                info.cls = Command
            holder.add_typer(found, name=self.name, cls=Group)
        else:
            holder.command(self.name, cls=Command)(found)
        (command,) = get_group(holder).commands.values()
        return command

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Where parsing its arguments begins, and with it the command itself."""
        return self.load().make_context(*args, **kwargs)


def group(commands: Mapping[str, tuple[str, str]]) -> type[TyperGroup]:
    """A group of deferred commands: of each by its name the target and the summary."""

    class Commands(Group):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            for name, (target, summary) in commands.items():
                self.add_command(Deferred(name, target, summary))

    return Commands
