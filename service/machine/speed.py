"""How fast this machine is, measured in a few seconds."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Rates of this machine, of which stages' times are computed."""

    threads: int
