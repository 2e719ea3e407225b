"""The daemon: API, clock and intake in threads, and in the main thread one worker that carries out a run at a time.

Several daemons may share one PostgreSQL: a run is leased by one worker at a time, so no leader is needed.
A daemon that is killed leaves its lease behind; it runs out, or is seen to belong to a dead process, and the run is taken up where it was.
"""

import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import structlog
from sqlalchemy.exc import DBAPIError

from config.settings import Settings
from service.api import API, create_app, create_health_app
from service.api.listening import listening
from service.daemon.clock import start_clock
from service.daemon.hints import take_hints
from service.daemon.listing import Listings
from service.daemon.notifying import notify
from service.daemon.polling import poll
from service.daemon.worker import IDLE_SECONDS, Execute, Worker
from service.hubclient import connect
from service.logs import configure_logs
from service.release.checks.watch import broken
from service.release.watchlist import entries
from service.repeating import repeated
from service.store import Store, open_store

log = structlog.get_logger(__name__)


def serve(settings: Settings, execute: Execute) -> None:
    """Serve until SIGTERM or SIGINT, which put the run at hand back into the queue. Prints the service's URL once it answers there.

    Must be called in the main thread. Raises ConfigurationError when the database or the address cannot be used.
    """
    given = (settings.webhook_secret, settings.rebuild_secret)
    told = [secret for place in settings.notify for secret in (place.address(), place.key())]
    secrets = (settings.token, *(secret.get_secret_value() if secret else None for secret in given), *told)
    configure_logs(secrets=secrets)
    with closing(open_store(settings.database)) as store:
        _tell_broken(store, settings)
        worker = Worker(store, execute)
        before = {number: signal.signal(number, worker.interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            with front(store, settings) as url:
                sys.stdout.write(f"Sluice listens on {url}\n")
                sys.stdout.flush()
                worker.work()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _tell_broken(store: Store, settings: Settings) -> None:
    """Say which entries of the watch list cannot be released; health fails while there are any, and all others are served."""
    for item in broken(entries(store, settings)):
        log.error("watch entry broken", repo=item.repo, recipe=item.recipe, error=item.error)


@contextmanager
def front(store: Store, settings: Settings) -> Iterator[str]:
    """Everything by which work comes in, running until the block ends: x"""
    listings = Listings(connect(settings))
    with _api(store, settings) as url, _intake(store, settings, listings), _notifying(store, settings):
        clock = start_clock(settings, lambda: poll(store, settings, listings))
        try:
            yield url
        finally:
            clock.shutdown()


@contextmanager
def _api(store: Store, settings: Settings) -> Iterator[str]:
    """The API at the yielded URL, and health on a listener of its own where the settings say so."""
    most = settings.api_connections_per_client
    with ExitStack() as stack:
        if settings.health_port is not None:
            where = stack.enter_context(listening(create_health_app(store, settings), settings.api_host, settings.health_port, name="health", per_client=most))
            log.info("health", url=f"{where}{API}/health")
        yield stack.enter_context(listening(create_app(store, settings), settings.api_host, settings.api_port, per_client=most))


@contextmanager
def _intake(store: Store, settings: Settings, listings: Listings) -> Iterator[None]:
    def take() -> bool:
        try:
            take_hints(store, settings, listings)
        except DBAPIError as error:
            log.warning("hints not read", error=str(error.orig))
        return True

    with repeated(take, seconds=IDLE_SECONDS, name="intake"):
        yield


@contextmanager
def _notifying(store: Store, settings: Settings) -> Iterator[None]:
    def tell() -> bool:
        try:
            notify(store, settings.notify)
        except DBAPIError as error:
            log.warning("notifications not looked after", error=str(error.orig))
        return True

    if not settings.notify:
        yield
        return
    with repeated(tell, seconds=IDLE_SECONDS, name="notify"):
        yield
