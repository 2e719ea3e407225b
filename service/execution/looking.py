"""A workbench at which nothing is made: it finds what is kept, and says where something is not."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.execution.kept import Inputs, Output, stage_key
from service.execution.workbench import Workbench


class NotKept(Exception):
    """An output that would have to be made. Not a SluiceError: a stage must not take it for a failure that concerns one variant."""


@dataclass(kw_only=True)
class Looking(Workbench):
    """Looks outputs up, and records nothing. What is not there raises NotKept."""

    found_outputs: int = 0

    def _once(
        self, name: str, function: str, inputs: Inputs, params: Mapping[str, Any], work: Callable[[Path], dict[str, Any]], *, resumes: bool = False
    ) -> Output:
        if (kept := self.stages.look_up(stage_key(function, inputs, params))) is None:
            raise NotKept(name)
        self.found_outputs += 1
        return kept
