"""A disk that fills up at a random moment of a run, stays full for a while, and is given back."""

import errno
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.soak.ending import ONE, came, ended, undisturbed
from bench.soak.found import Found
from bench.soak.share import Share
from bench.soak.world import World, service

SIZE = "400m"  # of the disk
KEPT = {"runs": 1, "free": "200MB", "pause": "1kB"}  # so that the disk does not fill up by itself
FULL = 5.0  # seconds for which it is full
PIECE = 65_536  # bytes


def disks(world: World, share: Share) -> Found:
    """So many. The home of the service, its database and log too, are in a file system in memory, which only root may mount."""
    found = Found("full disks", share.number)
    home = world.folder / "home"
    home.mkdir()
    with _small(home) as why:
        if why is not None:
            found.wrong.append(f"not done: no small disk can be mounted ({why}); root may")
            return found
        with service(world, config={"keep": KEPT}) as running:
            _, took = undisturbed(world, running, "weights")
            while share.goes_on(found):
                world.push(ONE, "weights")
                if not came(running, lambda: running.at_work):
                    found.wrong.append("lost: no run began")
                time.sleep(share.chance.uniform(0, sum(took.values())))
                at = running.place()
                _fill(home / "ballast", FULL)
                found.done[at] += 1
                found.wrong += ended(world, running, retry=True)
    return found


@contextmanager
def _small(folder: Path) -> Iterator[str | None]:
    """A small disk in the folder, for as long as the block lasts; why there is none, or None."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder], check=False, capture_output=True, text=True)  # noqa: S607
    if mounted.returncode:
        yield mounted.stderr.strip()
        return
    try:
        yield None
    finally:
        subprocess.run(["umount", "--lazy", folder], check=False)  # noqa: S607  whoever has a file open there does not keep it


def _fill(ballast: Path, seconds: float) -> None:
    """Leave the disk without a byte to spare for so long, also when somebody throws something away to make room."""
    until_when = time.monotonic() + seconds
    with ballast.open("wb", buffering=0) as file:
        while time.monotonic() < until_when:
            try:
                file.write(bytes(PIECE))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                time.sleep(0.01)
    ballast.unlink()
