"""The checks that find wrong input in the first minute: one file each, attached to the stages that would fail by it, all of them run before the first stage."""

from collections.abc import Iterator

from config.errors import ConfigurationError, SluiceError
from service.release.checks import architecture, budgets, data, gates, publishing, terms
from service.release.checks.problem import Problem, Remark
from service.release.graph import Check, Graph
from service.release.prospect import Prospect

__all__ = ["Problem", "Remark", "architecture", "budgets", "data", "gates", "problems", "publishing", "refuse", "terms"]


def problems(graph: Graph, prospect: Prospect) -> tuple[Problem, ...]:
    """What every check of every stage finds, each check run once, in the order of the stages; what a check raises as SluiceError is a problem like others.

    Nothing is written, neither on the Hub nor here.
    """
    attached: dict[Check, str] = {}
    for stage in graph.stages:
        for check in stage.checks:
            attached.setdefault(check, stage.name)
    return tuple(
        Problem(stage=stage, check=check.name, sentence=str(sentence), fatal=not isinstance(sentence, Remark))
        for check, stage in attached.items()
        for sentence in _said(check, prospect)
    )


def refuse(found: tuple[Problem, ...]) -> None:
    """Raise ConfigurationError with everything that is wrong, in one paragraph; remarks alone refuse nothing."""
    if fatal := list(dict.fromkeys(problem.sentence for problem in found if problem.fatal)):
        raise ConfigurationError(" ".join(fatal))


def _said(check: Check, prospect: Prospect) -> Iterator[str]:
    try:
        yield from check.look(prospect)
    except SluiceError as error:
        yield str(error)
