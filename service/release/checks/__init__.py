"""The checks that find wrong input in the first minute: a file for each matter, whose `CHECKS` name the stages that would fail by them.

Every file of this folder is read, and all its checks are made before the first stage: by a dry run, and before a run is put into the queue; those that take a
process of their own where the run begins.
"""

import importlib
import logging
import pkgutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache

from config.errors import ConfigurationError, HubUnavailable, SluiceError
from service.release.checks.problem import Problem, Remark
from service.release.graph import Check, Graph, Stage
from service.release.prospect import Prospect

__all__ = ["Problem", "Remark", "attached", "every", "problems", "refuse"]


log = logging.getLogger(__name__)


@cache
def every() -> tuple[Check, ...]:
    """All checks, file by file in the order of their names."""
    modules = sorted(item.name for item in pkgutil.iter_modules(__path__))
    return tuple(check for module in modules for check in getattr(importlib.import_module(f"{__name__}.{module}"), "CHECKS", ()))


def attached(stages: Iterable[Stage]) -> Iterator[Stage]:
    """The stages with what must hold before they can succeed."""
    for stage in stages:
        yield replace(stage, checks=(*stage.checks, *(check for check in every() if check.stage == stage.family)))


def problems(graph: Graph, prospect: Prospect, *, apart: bool | None = None) -> tuple[Problem, ...]:
    """What every check of every stage finds, each check run once, in the order of the stages; what a check raises as SluiceError is a problem like others.

    `apart` leaves only the checks that take a process of their own, or only the others. Nothing is written, neither on the Hub nor here.
    """
    attached: dict[Check, str] = {}
    for stage in graph.stages:
        for check in stage.checks:
            if apart is None or check.apart is apart:
                attached.setdefault(check, stage.name)
    return tuple(problem for check, stage in attached.items() for problem in _found(stage, check, prospect))


def refuse(found: Iterable[Problem]) -> None:
    """Raise everything that is wrong as one error: of its kind where all of it is of one, else ConfigurationError. Remarks alone refuse nothing.

    Where the Hub could not be asked about some of it, that is what is raised: the rest may be otherwise when it can.
    """
    fatal = [problem for problem in found if problem.fatal]
    if fatal:
        kinds = {problem.raised for problem in fatal}
        kind = HubUnavailable if HubUnavailable in kinds else kinds.pop() if len(kinds) == 1 else ConfigurationError
        raise kind(" ".join(dict.fromkeys(problem.sentence for problem in fatal)))


def _found(stage: str, check: Check, prospect: Prospect) -> Iterator[Problem]:
    try:
        for sentence in check.look(prospect):
            yield Problem(stage=stage, check=check.name, sentence=str(sentence), fatal=not isinstance(sentence, Remark))
    except SluiceError as error:
        yield Problem(stage=stage, check=check.name, sentence=str(error), raised=type(error))
    except Exception as error:  # a stranger's files may be odder than a check foresees: its stage will say what is wrong
        log.exception("check failed", extra={"action": "check"})
        yield Problem(stage=stage, check=check.name, sentence=f"The check of the {check.name} could not be made ({type(error).__name__}).", fatal=False)
