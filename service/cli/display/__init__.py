"""What a person sees: live progress of a run, and its result as tables."""

from service.cli.display.live import progress
from service.cli.display.tables import megabytes, plans_table, runs_table, show_run
from service.cli.display.watch import Watch

__all__ = ["Watch", "megabytes", "plans_table", "progress", "runs_table", "show_run"]
