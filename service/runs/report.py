"""The report of a run, found again."""

from pathlib import Path

from config.errors import SluiceError
from config.settings import Settings
from publishers.naming import REPORT
from service.store import Store

STAGE = "report"  # that makes it


class NoReport(SluiceError):
    """The run has no report, or it was removed."""


def find(store: Store, settings: Settings, run: int) -> Path:
    """The page of a run. Raises UnknownRun, NoReport."""
    store.run(run)
    made = next((stage for stage in store.stages(run) if stage.name == STAGE and stage.state in {"done", "reused"}), None)
    path = settings.folder / "stages" / (made.key if made else "") / "files" / REPORT
    if made is None or not path.is_file():
        raise NoReport(f"Run {run} has no report. One is made when its variants have been judged; `sluice status {run}` shows how far it came.")
    return path
