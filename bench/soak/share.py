"""What one world does of a part: how often, until when, and in which order."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from bench.soak.found import Found

T = TypeVar("T")


def _to_nobody(found: Found) -> None:
    """Tell nobody."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """One world's share of a part."""

    number: int  # of things that this world does
    whole: int  # that all worlds do
    first: int = 0  # of those, where this world's begin
    until: float  # of the monotonic clock, which all processes of a machine share; nothing is begun after that
    chance: random.Random = field(default_factory=random.Random)
    told: Callable[[Found], None] = _to_nobody  # hears what was found so far, after each thing

    def goes_on(self, found: Found) -> bool:
        """Whether there is something left to do, and time for it; tells what there is so far."""
        self.told(found)
        return found.done.total() < self.number and time.monotonic() < self.until

    def place(self, places: Sequence[T], nth: int) -> T:
        """Where the `nth` thing of this world is done: all worlds together go through the places, again and again.

        Where there are more places than things to do, these are spread over them.
        """
        index = self.first + nth
        return places[(index * len(places) // self.whole if self.whole < len(places) else index) % len(places)]


def shares(number: int, worlds: int, *, until: float, seed: str) -> list[Share]:
    """A number of things shared out among so many worlds, or fewer where there are fewer things; the chance of each is made of the seed."""
    worlds = min(worlds, number)
    cuts = [number * world // worlds for world in range(worlds + 1)]
    return [
        Share(number=cuts[world + 1] - cuts[world], whole=number, first=cuts[world], until=until, chance=random.Random(f"{seed} {world}"))  # noqa: S311
        for world in range(worlds)
    ]
