"""How much of the disk of `home` is free, held against the two marks: below the higher one a service tidies up, below the lower one it begins nothing."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from config.settings import Settings
from service.machine.folders import existing


@dataclass(frozen=True, kw_only=True)
class Space:
    """The disk as it is now."""

    home: Path
    free: int  # bytes
    lacking: int  # bytes until nothing needs to be thrown away before its time
    paused: bool  # no run is begun

    @property
    def told(self) -> str:
        """In a sentence, of a disk on which nothing is begun."""
        return (
            f"Only {self.free / 1e9:.2f} GB are free on the disk of {self.home}, less than `keep.pause` in the settings: a service begins no run until there "
            "are more. Free some space; `sluice prune --dry-run` says what stays and why."
        )


def space(settings: Settings) -> Space:
    """Look at the disk."""
    free = shutil.disk_usage(existing(settings.folder)).free
    return Space(home=settings.folder, free=free, lacking=max(0, settings.keep.free - free), paused=free < settings.keep.pause)
