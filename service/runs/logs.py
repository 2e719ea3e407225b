"""What the stages of a run said: their logs, without secrets."""

from collections.abc import Iterator
from pathlib import Path

from config.errors import SluiceError
from config.settings import Settings
from service.execution import log
from service.logs import redact
from service.store import Store

ALL = 2**63  # bytes, more than any log has
LONGEST_LINE = 100_000  # bytes that a line may have before it is cut


class NoLog(SluiceError):
    """The stage has no log, or it was removed."""


def find(store: Store, settings: Settings, run: int, stage: str) -> Path:
    """The log of a run's stage. Raises UnknownRun, NoLog."""
    store.run(run)
    if all(item.name != stage for item in store.stages(run)):
        raise NoLog(f"Run {run} has begun no stage {stage!r}. `sluice status {run}` names those that it has.")
    path = settings.folder / "logs" / f"run-{run}" / f"{stage.replace(' ', '-')}.log"
    if not path.is_file():
        raise NoLog(f"The stage {stage} of run {run} has no log on this machine: it wrote none, it ran elsewhere, or the log was removed.")
    return path


class Reader:
    """Reads a log that may still grow, in whole lines, without secrets."""

    def __init__(self, path: Path, settings: Settings, *, last: int) -> None:
        """Begins with the `last` bytes."""
        self._path = path
        self._secrets = tuple(secret for secret in (settings.token, settings.webhook_secret and settings.webhook_secret.get_secret_value()) if secret)
        with path.open("rb") as file:
            self._place = max(0, log.length(file) - last)
        self._cut = self._place > 0

    def read(self, *, ended: bool) -> str:
        """What came since the last time, up to the last whole line; all of it where the log has `ended`."""
        try:
            with self._path.open("rb") as file:
                if log.length(file) < self._place:  # begun anew
                    self._place, self._cut = 0, False
                found, self._place = log.since(file, self._place)
        except FileNotFoundError:
            return ""
        if not ended and (whole := found.rfind(b"\n") + 1) < len(found) and len(found) - whole < LONGEST_LINE:
            self._place -= len(found) - whole
            found = found[:whole]
        if self._cut and found:
            self._cut, found = False, found[found.find(b"\n") + 1 :]
        return redact(found.decode("utf-8", errors="replace"), self._secrets)

    def lines(self, *, ended: bool) -> Iterator[str]:
        """The same, line by line."""
        yield from self.read(ended=ended).splitlines()


def growing(store: Store, settings: Settings, run: int, stage: str, *, last: int) -> Iterator[str | None]:
    """What is new in the log of a run's stage, begun with the `last` bytes, until the stage has ended; None at each look that found nothing.

    Raises UnknownRun, NoLog.
    """
    reader = Reader(find(store, settings, run, stage), settings, last=last)
    while True:
        ended = not any(item.name == stage and item.state == "running" for item in store.stages(run))
        text = reader.read(ended=ended)
        yield text or None
        if ended:
            return
