"""What a part of the soak came to."""

import time
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Found:
    """How often each thing was done, of how many that were wanted, and what was wrong afterwards."""

    part: str
    wanted: int
    done: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    @property
    def short(self) -> bool:
        """Whether it was left off before its number."""
        return self.done.total() < self.wanted

    def tell(self, began: float) -> None:
        """Print it."""
        places = ", ".join(f"{name} {number}" for name, number in sorted(self.done.items()))
        minutes = (time.monotonic() - began) / 60
        print(f"{self.part}: {self.done.total()} of {self.wanted} in {minutes:.1f} min ({places}); wrong: {len(self.wrong)}", flush=True)
        for line in self.wrong:
            print(f"  {line}", flush=True)
