"""Whether a run fits on this machine: what it needs, held against what there is."""

from collections.abc import Iterator
from pathlib import Path


def room(*, disk: int, free: int, home: Path, memory: int, total: int) -> Iterator[str]:
    """A sentence for disk and one for memory where they do not suffice, all in bytes.

    `disk` is what the run will take of the `free` on the disk of `home`, `memory` what its largest stage needs of the `total` that a stage may have.
    """
    if disk > free:
        yield (
            f"The run needs about {disk / 1e9:.2f} GB of disk, and {home} has {free / 1e9:.2f} GB free: the disk is too small. "
            "Free some space, set `home` in the settings to a folder on a larger disk, or build fewer variants."
        )
    if memory > total:
        yield (
            f"The run needs about {memory / 2**30:.1f} GiB of memory at its peak, and a stage may have {total / 2**30:.1f} GiB here. "
            "Use a larger machine, raise `memory_gib` in the settings if it is set, or build fewer kinds of variants."
        )
