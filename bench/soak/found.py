"""What a part of the soak came to, in one world or in all of them together."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

KINDS = ("half", "double", "older over newer", "lost", "left running")  # of what must not be; each such line begins with the name of its kind


@dataclass
class Found:
    """How often each thing was done, of how many that were wanted, and what was wrong afterwards."""

    part: str
    wanted: int
    done: Counter[str] = field(default_factory=Counter)
    met: Counter[str] = field(default_factory=Counter)  # faults of the Hub, by their names
    wrong: list[str] = field(default_factory=list)
    processor: float = 0.0  # seconds of it, of the services and all that they started too

    @property
    def short(self) -> bool:
        """Whether it was left off before its number."""
        return self.done.total() < self.wanted

    @property
    def faults(self) -> list[str]:
        """What was wrong, each thing once, however often it was seen."""
        return list(dict.fromkeys(self.wrong))

    @property
    def kinds(self) -> Counter[str]:
        """How much was wrong, by its kind; `other` of none of them."""
        return Counter(next((kind for kind in KINDS if line.startswith(f"{kind}:")), "other") for line in self.faults)

    def told(self, minutes: float) -> str:
        """In one line, without what was wrong but for its number."""
        places = ", ".join(f"{name} {number}" for name, number in sorted(self.done.items()))
        met = f"; through {', '.join(f'{name} {number}' for name, number in sorted(self.met.items()))}" if self.met.total() else ""
        return f"{self.part}: {self.done.total()} of {self.wanted} in {minutes:.1f} min ({places}{met}); wrong: {len(self.faults)}"


def together(part: str, wanted: int, found: Iterable[Found]) -> Found:
    """What several worlds found of one part."""
    whole = Found(part, wanted)
    for each in found:
        whole.done += each.done
        whole.met += each.met
        whole.wrong += each.wrong
        whole.processor += each.processor
    return whole
