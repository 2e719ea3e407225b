"""What a release will take, stage by stage and in all, and what earlier releases on this machine teach about such estimates."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from service.machine.speed import Speed
from service.release.graph import Graph, Needs
from service.release.prospect import Prospect
from service.store import Foretold, Store

PRIOR = 2.0  # observations of a factor of 1 that every kind of stage begins with
MOST = 4.0  # the largest factor, and the reciprocal of the smallest
LEAST = 0.05  # seconds: what is shorter says nothing


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What the stages of a release will need; of those that are done already, no time."""

    stages: Mapping[str, Needs]  # by name, in the order of the graph
    kept: frozenset[str]  # names of those whose outputs are there already
    foretold: Mapping[str, Foretold]  # how long each will take, and how that was found

    @property
    def seconds(self) -> float:
        """One stage after another."""
        return sum(needs.seconds for needs in self.stages.values())

    @property
    def memory(self) -> int:
        """Bytes at the peak of the stage that needs most of those that will run."""
        return max((needs.memory for name, needs in self.stages.items() if name not in self.kept), default=0)

    @property
    def more_disk(self) -> int:
        """Bytes of the outputs that are not there yet."""
        return sum(needs.disk for name, needs in self.stages.items() if name not in self.kept)

    @property
    def disk(self) -> int:
        """Bytes of all outputs, those included that are there already."""
        return sum(needs.disk for needs in self.stages.values())


def forecast(graph: Graph, prospect: Prospect, speed: Speed, corrections: Mapping[str, float], kept: Collection[str]) -> Forecast:
    """The needs of every stage by its cost, seconds times the correction of its like; `kept` names the stages that will be found done."""
    stages, foretold = {}, {}
    for stage in graph.stages:
        needs, correction = stage.cost(prospect, speed), corrections.get(stage.like, 1.0)
        reckoned = 0.0 if stage.name in kept else needs.seconds
        foretold[stage.name] = Foretold(like=stage.like, reckoned=reckoned, correction=correction)
        stages[stage.name] = replace(needs, seconds=foretold[stage.name].seconds)
    return Forecast(stages=stages, kept=frozenset(kept) & stages.keys(), foretold=foretold)


def learned(store: Store) -> dict[str, float]:
    """The corrections that the latest runs in the database teach."""
    return corrections(
        (expected[name].like, expected[name].reckoned, seconds) for expected, taken in store.forecasts() for name, seconds in taken.items() if name in expected
    )


def corrections(rows: Iterable[tuple[str, float, float]]) -> dict[str, float]:
    """What to multiply estimates with, from earlier (`Stage.like`, estimated seconds, actual seconds), estimates taken before any correction.

    The geometric mean of actual over estimated, drawn towards 1 as if PRIOR more observations had been right, and bounded by MOST.
    """
    logs: defaultdict[str, list[float]] = defaultdict(list)
    for like, estimated, actual in rows:
        if estimated >= LEAST and actual >= LEAST and math.isfinite(estimated) and math.isfinite(actual):
            logs[like].append(math.log(actual / estimated))
    bound = math.log(MOST)
    return {like: math.exp(min(bound, max(-bound, sum(found) / (len(found) + PRIOR)))) for like, found in logs.items()}
