"""Where the functions of stages are run: on this machine, one after another; or wherever a cluster has room."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from service.execution.kept import Inputs
from service.execution.process import Limits, Request, run_apart

__all__ = ["HERE", "Here", "Limits", "Place", "Request"]


class Place(Protocol):
    """A machine, or several."""

    @property
    def wide(self) -> bool:
        """Whether several stages may be at work at once."""

    def lanes(self) -> int:
        """How many at present."""

    def turn(self) -> AbstractContextManager[None]:
        """Waits until there is room for one more stage; it is taken until the block ends."""

    def run(self, function: str, workspace: Path, inputs: Inputs, params: Mapping[str, Any], *, limits: Limits, log: Path) -> dict[str, Any]:
        """What a stage function returns that wrote its files to `workspace / "files"`, its account in `log`. Raises its error, or StageError."""


@dataclass(frozen=True)
class Here:
    """This machine."""

    wide: bool = False

    def lanes(self) -> int:
        """A stage has the machine for itself."""
        return 1

    def turn(self) -> AbstractContextManager[None]:
        """There is room: whoever asks is the only one."""
        return nullcontext()

    def run(self, function: str, workspace: Path, inputs: Inputs, params: Mapping[str, Any], *, limits: Limits, log: Path) -> dict[str, Any]:
        """In a process of its own."""
        return run_apart(function, workspace, inputs, params, limits=limits, log=log)


HERE = Here()
