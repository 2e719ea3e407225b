"""What a release will take, stage by stage and in all, and what earlier releases on this machine teach about such estimates."""

import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from service.machine.speed import Speed
from service.release.graph import Graph, Needs
from service.release.prospect import Prospect
from service.runs.ahead import owner_of
from service.store import Foretold, Store

PRIOR = 2.0  # observations of a factor of 1 that every kind of stage begins with
MOST = 4.0  # the largest factor, and the reciprocal of the smallest
LEAST = 0.05  # seconds: what is shorter says nothing

_EXTENDED = re.compile(r" from \d+ to \d+ \w+$")  # of a step that extends a sample
_VARIANT = re.compile(r"^(?=.*[A-Z0-9/]).*$")  # a tag, a number or a repo: words of stages are in small letters
_FOLDER = re.compile(r"(?:^|-)(?:16bit|bnb-4bit)$")  # tags of what transformers runs


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What the stages of a release will need; of those that are done already, no time."""

    stages: Mapping[str, Needs]  # by name, in the order of the graph
    kept: frozenset[str]  # names of those whose outputs are there already
    corrections: Mapping[str, float]  # by kind of stage: what seconds were multiplied with

    @property
    def foretold(self) -> dict[str, Foretold]:
        """What is expected of each stage, to be kept with the run."""
        corrected = {name: self.corrections.get(kind_of(name), 1.0) for name in self.stages}
        return {name: Foretold(reckoned=needs.seconds / corrected[name], correction=corrected[name]) for name, needs in self.stages.items()}

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
    """The needs of every stage by its cost, seconds times the correction of its kind; `kept` names the stages that will be found done."""
    found = {}
    for stage in graph.stages:
        needs = stage.cost(prospect, speed)
        seconds = 0.0 if stage.name in kept else needs.seconds * corrections.get(kind_of(stage.name), 1.0)
        found[stage.name] = replace(needs, seconds=seconds)
    return Forecast(stages=found, kept=frozenset(kept) & found.keys(), corrections=corrections)


def learned(store: Store) -> dict[str, float]:
    """The corrections that the latest runs in the database teach."""
    return corrections(row for expected, steps in store.forecasts() for row in compared(expected, steps))


def compared(expected: Mapping[str, Foretold], steps: Sequence[tuple[str, float]]) -> Iterator[tuple[str, float, float]]:
    """Of each stage with a forecast whose steps were done: its name, the seconds that were reckoned, and those that its steps took together."""
    taken: defaultdict[str, float] = defaultdict(float)
    for name, seconds in steps:
        if (owner := owner_of(name, expected)) is not None:
            taken[owner] += seconds
    return ((name, expected[name].reckoned, seconds) for name, seconds in taken.items())


def corrections(rows: Iterable[tuple[str, float, float]]) -> dict[str, float]:
    """By kind of stage what to multiply its estimate with, from earlier (name, estimated seconds, actual seconds), estimates taken before any correction.

    The geometric mean of actual over estimated, drawn towards 1 as if PRIOR more observations had been right, and bounded by MOST.
    """
    logs: defaultdict[str, list[float]] = defaultdict(list)
    for name, estimated, actual in rows:
        if estimated >= LEAST and actual >= LEAST and math.isfinite(estimated) and math.isfinite(actual):
            logs[kind_of(name)].append(math.log(actual / estimated))
    bound = math.log(MOST)
    return {kind: math.exp(min(bound, max(-bound, sum(found) / (len(found) + PRIOR)))) for kind, found in logs.items()}


def kind_of(name: str) -> str:
    """A stage's or a step's name without its variant: `build Q4_K_M` is a `build`, and `build bnb-4bit`, by another engine, a `build in transformers`."""
    words = _EXTENDED.sub("", name).split()
    tags = [word for word in words[1:] if _VARIANT.match(word)]
    plain = " ".join([*words[:1], *(word for word in words[1:] if word not in tags)])
    return f"{plain} in transformers" if any(_FOLDER.search(tag) for tag in tags) else plain
