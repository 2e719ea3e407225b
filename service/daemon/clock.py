"""The clock: says at every poll that each repo of the watch list may have changed. Looking is the work of intake."""

from datetime import UTC, datetime

from apscheduler.schedulers.background import BackgroundScheduler

from config.settings import Settings
from service.store import Store


def poll(store: Store, settings: Settings) -> None:
    """Leave a hint for every watched repo."""
    for repo in sorted({watched.repo for watched in settings.watch}):
        store.put_hint(repo, "poll")


def start_clock(store: Store, settings: Settings) -> BackgroundScheduler:
    """Poll now and every `poll_minutes` from now on, in a thread, until the returned scheduler is shut down.

    Several services may tick on one database: a hint that is pending already is not made again.
    """
    clock = BackgroundScheduler(timezone=UTC)
    clock.add_job(
        poll,
        "interval",
        args=(store, settings),
        minutes=settings.poll_minutes,
        next_run_time=datetime.now(UTC),
        coalesce=True,  # after a suspended machine wakes up, one poll is enough
        max_instances=1,
        misfire_grace_time=None,
    )
    clock.start()
    return clock
