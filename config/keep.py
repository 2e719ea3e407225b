"""What stays on the disk of the service, and when the rest goes."""

from typing import Self

from pydantic import Field, model_validator

from config.plans import Bytes
from config.strict import Strict


class Keep(Strict):
    """What stays on the disk of `home`. Outputs of runs that are queued or at work always stay, and so does the report of whatever is published."""

    runs: int = Field(default=3, ge=1)
    """Outputs of the newest so many runs of an upstream repo by one recipe stay, of as many that failed or were cancelled, and of as many that are held,
    however old these are; those of what is published stay besides."""
    days: float = Field(default=60.0, gt=0)
    """Of these, outputs that are older go all the same. Logs stay as long, and so do outputs that belong to no run."""
    free: Bytes = 5_000_000_000
    """When fewer bytes than this are free, a service throws away at once what may go, then downloads that broke off, then other outputs, the oldest first and
    those of what is published last; "50GB"."""
    pause: Bytes = 1_000_000_000
    """While fewer bytes than this are free, a service begins no run, and throws away even broken-off downloads that runs wait to go on with, then outputs of
    held runs, the oldest first."""

    run_days: float = Field(default=365.0, gt=0)
    """Records of runs (steps, figures, verdicts) go when the run ended so many days ago. Those of what is published stay, those of the newest run of each
    upstream repo by one recipe, and those of whatever is not at its end or has something left to do; a run that is held for so long, and has a newer one that
    is held or published, is at its end."""
    message_days: float = Field(default=30.0, gt=0)
    """What the places of `notify` were told goes after so many days, and how steps of ended runs went that were begun again since."""
    audit_days: float = Field(default=3 * 365.0, gt=0)
    """Events of the audit trail go after so many days; what tells of runs whose records stay, stays with them."""

    @model_validator(mode="after")
    def _outlasts(self) -> Self:
        if self.run_days < self.days:
            raise ValueError(f"`run_days` ({self.run_days:g}) is less than `days` ({self.days:g}), so that outputs would stay of which nobody knows the run")
        if self.audit_days < self.run_days:
            raise ValueError(
                f"`audit_days` ({self.audit_days:g}) is less than `run_days` ({self.run_days:g}), so that runs would stay of which nothing is told"
            )
        return self

    @model_validator(mode="after")
    def _pauses_last(self) -> Self:
        if self.pause > self.free:
            raise ValueError(f"`pause` ({self.pause}) is more than `free` ({self.free}), so that a service would wait before it throws anything away")
        return self
