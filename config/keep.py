"""What stays on the disk of the service, and when the rest goes."""

from typing import Self

from pydantic import Field, model_validator

from config.plans import Bytes
from config.strict import Strict


class Keep(Strict):
    """What stays on the disk of `home`. Outputs of runs that are queued, at work or held always stay, and so does the report of whatever is published."""

    runs: int = Field(default=3, ge=1)
    """Outputs of the newest so many runs of an upstream repo by one recipe stay, and of as many that failed or were cancelled; those of what is published stay
    besides."""
    days: float = Field(default=60.0, gt=0)
    """Of these, outputs that are older go all the same. Logs stay as long, and so do outputs that belong to no run."""
    free: Bytes = 5_000_000_000
    """When fewer bytes than this are free, a service throws away at once what may go, then other outputs, the oldest first and those of what is published last;
    "50GB"."""
    pause: Bytes = 1_000_000_000
    """While fewer bytes than this are free, a service begins no run."""

    @model_validator(mode="after")
    def _pauses_last(self) -> Self:
        if self.pause > self.free:
            raise ValueError(f"`pause` ({self.pause}) is more than `free` ({self.free}), so that a service would wait before it throws anything away")
        return self
