"""Whether a run fits on this machine: what it is expected to need, held against what there is."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from config.settings import Settings
from service.machine.folders import existing
from service.release.forecast import Forecast

SURE_DISK, SURE_MEMORY, SURE_TIME = 0.8, 0.5, 0.5  # of an estimate: what it will surely come to


@dataclass(frozen=True, kw_only=True)
class Room:
    """What a run may use."""

    home: Path
    disk: int  # bytes that are free
    memory: int  # bytes that a stage may have
    seconds: float  # that a stage may take


def room(settings: Settings) -> Room:
    """What the machine has and the settings allow."""
    return Room(
        home=settings.folder,
        disk=shutil.disk_usage(existing(settings.folder)).free,
        memory=int(settings.memory_gib * 2**30) if settings.memory_gib else int(psutil.virtual_memory().total),
        seconds=settings.stage_minutes * 60,
    )


def exceeded(expected: Forecast, there: Room, *, surely: bool = False) -> Iterator[str]:
    """A sentence for each thing that does not suffice; `surely` leaves out what an estimate may be wrong about."""
    disk, memory, seconds = (SURE_DISK, SURE_MEMORY, SURE_TIME) if surely else (1.0, 1.0, 1.0)
    if disk * expected.more_disk > there.disk:
        yield (
            f"The run needs about {expected.more_disk / 1e9:.2f} GB of disk, and {there.home} has {there.disk / 1e9:.2f} GB free: the disk is too small. "
            "Free some space, set `home` in the settings to a folder on a larger disk, or build fewer variants."
        )
    if memory * expected.memory > there.memory:
        yield (
            f"The run needs about {expected.memory / 2**30:.1f} GiB of memory at its peak, and a stage may have {there.memory / 2**30:.1f} GiB here. "
            "Use a larger machine, raise `memory_gib` in the settings if it is set, or build fewer kinds of variants."
        )
    long = [name for name, needs in expected.stages.items() if seconds * needs.seconds > there.seconds]
    if long:
        slowest = max(expected.stages[name].seconds for name in long)
        yield (
            f"{', '.join(long)} will take up to {slowest / 60:.0f} minutes, and a stage is stopped after {there.seconds / 60:.0f}. "
            "Raise `stage_minutes` in the settings, use a faster machine, or less text."
        )
