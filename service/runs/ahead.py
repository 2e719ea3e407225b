"""What of a run is still to come, by what was foretold of its stages and by what its steps in the database have come to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from service.pace import run_left, stage_left
from service.store import Foretold, StageRecord


@dataclass(frozen=True, kw_only=True)
class Ahead:
    """The stage that a run is at, and those after it."""

    stage: str  # by its name in the graph
    began: datetime  # its first step in this attempt
    estimate: float  # seconds
    coming: Mapping[str, float]  # seconds by name, in the order of the graph

    def left(self, steps: Sequence[StageRecord], now: datetime) -> float | None:
        """Seconds to the end of the run: no less than the steps at work need, nor than the stage's own estimate leaves, and then what is coming."""
        working = [stage_left((now - step.started).total_seconds(), step.estimate, step.phase, now) for step in steps if step.state == "running"]
        known = [seconds for seconds in working if seconds is not None]
        whole = max(0.0, self.estimate - (now - self.began).total_seconds())
        return run_left([max([whole, *known])], self.coming.values())


def ahead(forecast: Mapping[str, Foretold], steps: Sequence[StageRecord]) -> Ahead | None:
    """Where the steps of a run's present attempt are in what was foretold; None where nothing was, or nothing has begun."""
    order = list(forecast)
    owners = [(order.index(step.stage), step) for step in steps if step.stage is not None and step.stage in forecast]
    if not owners:
        return None
    place = max(index for index, _ in owners)
    return Ahead(
        stage=order[place],
        began=min(step.started for index, step in owners if index == place),
        estimate=forecast[order[place]].seconds,
        coming={name: forecast[name].seconds for name in order[place + 1 :]},
    )
