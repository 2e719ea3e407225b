"""The clock: polls the watch list again and again. Looking at what changed is the work of intake."""

from collections.abc import Callable
from datetime import UTC, datetime

from apscheduler.schedulers.background import BackgroundScheduler

from config.settings import Settings

JITTER = 0.1  # of the time between two polls: services that were started together do not ask the Hub together


def start_clock(settings: Settings, poll: Callable[[], object]) -> BackgroundScheduler:
    """Poll now and every `poll_minutes` from now on, in a thread, until the returned scheduler is shut down.

    Several services may tick on one database: a hint that is pending already is not made again.
    """
    clock = BackgroundScheduler(timezone=UTC)
    clock.add_job(
        poll,
        "interval",
        minutes=settings.poll_minutes,
        jitter=settings.poll_minutes * 60 * JITTER,
        next_run_time=datetime.now(UTC),
        coalesce=True,  # after a suspended machine wakes up, one poll is enough
        max_instances=1,
        misfire_grace_time=None,
    )
    clock.start()
    return clock
