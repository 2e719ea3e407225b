"""The daemon: API, clock and intake in threads, and in the main thread one worker that carries out a run at a time.

Several daemons may share one PostgreSQL: a run is leased by one worker at a time, so no leader is needed.
A daemon that is killed leaves its lease behind; it runs out, or is seen to belong to a dead process, and the run is taken up where it was.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from threading import Event

import structlog

from config.errors import ClusterUnavailable
from config.settings import Settings
from config.wire import API
from engines import orphans
from service.api import create_app, create_health_app
from service.api.listening import listening
from service.cluster.choice import place_of
from service.daemon.clock import JITTER, start_clock
from service.daemon.hints import take_hints
from service.daemon.housekeeping import Housekeeping, tidied
from service.daemon.listing import Listings
from service.daemon.notifying import notify
from service.daemon.polling import poll
from service.daemon.stopping import stopped_by_signals
from service.daemon.watchdog import heard_by_systemd
from service.daemon.worker import FAILING_SECONDS, IDLE_SECONDS, Execute, Worker
from service.dashboard import add_dashboard
from service.hubclient import connect
from service.logs import configure_logs, redact
from service.pulse import pulse
from service.release.checks.watch import unreleasable
from service.release.gathering import take_up
from service.repeating import repeated
from service.store import Store, open_store
from service.store.database import is_away

PATIENCE = 1.1  # times `stuck_minutes` that the worker may be silent: a stage that hangs is ended before, and fails; a restart would only begin it anew
SILENCE = 600.0  # seconds without a sign of life after which a part that asks the Hub something is stuck: a look may take nearly as long
FOLLOW_UP_SECONDS = 5.0  # between two looks for what is still to do for runs that are done

log = structlog.get_logger(__name__)


def serve(settings: Settings, execute: Execute) -> None:
    """Serve until SIGTERM or SIGINT, which put the run at hand back into the queue. Prints the service's URL once it answers there.

    Must be called in the main thread. Raises ConfigurationError when the database, the address or the cluster cannot be used.
    """
    given = (settings.webhook_secret, settings.rebuild_secret)
    told = [secret for place in settings.notify for secret in (place.address(), place.key())]
    secrets = (settings.token, *(secret.get_secret_value() if secret else None for secret in given), *told)
    configure_logs(secrets=secrets)
    if swept := orphans.sweep():
        log.warning("programs of a service that was killed were still at work, and are ended", programs=swept)
    _look_at_place(settings)
    with closing(open_store(settings.database)) as store:
        store.hasten()  # an operator who starts it again may have cured what runs wait for
        _tell_broken(store, settings)
        housekeeping = Housekeeping(store, settings)
        worker = Worker(store, execute, may_begin=housekeeping.may_begin)
        limit = settings.stuck_minutes * 60 * PATIENCE
        with stopped_by_signals(worker.interrupt), front(store, settings) as url, tidied(housekeeping), pulse.part("worker", limit=limit), heard_by_systemd():
            sys.stdout.write(f"Sluice listens on {url}\n")
            sys.stdout.flush()
            worker.work()


def _look_at_place(settings: Settings) -> None:
    """Say at once what is wrong with where stages are to be carried out, and not by every run; what passes is waited for by runs, while all else is served."""
    try:
        with place_of(settings):
            pass
    except ClusterUnavailable as error:
        log.warning("the cluster is away", error=str(error))


def _tell_broken(store: Store, settings: Settings) -> None:
    """Say which entries of the watch list cannot be released; health fails while there are any, and all others are served."""
    for item in unreleasable(store, settings):
        log.error("watch entry broken", repo=item.repo, recipe=item.recipe, error=item.error)


@contextmanager
def front(store: Store, settings: Settings) -> Iterator[str]:
    """Everything by which work comes in and word goes out, running until the block ends; the API at the yielded URL."""
    listings = Listings(connect(settings))
    with ExitStack() as stack:
        url = stack.enter_context(_api(store, settings))
        for part in (_intake(store, settings, listings), _following_up(store, settings), _notifying(store, settings), _polling(store, settings, listings)):
            stack.enter_context(part)
        yield url


@contextmanager
def _polling(store: Store, settings: Settings, listings: Listings) -> Iterator[None]:
    def polled() -> None:
        _tried("poll", lambda: poll(store, settings, listings))

    with pulse.part("poll", limit=settings.poll_minutes * 60 * (1 + JITTER) + SILENCE):
        clock = start_clock(settings, polled)
        try:
            yield
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
        app, over = create_app(store, settings), Event()
        app.state.ending = over.is_set
        add_dashboard(app, store, settings)
        url = stack.enter_context(listening(app, settings.api_host, settings.api_port, per_client=most))
        stack.callback(over.set)  # before the listener ends, which waits for streams that would go on
        yield url


def _intake(store: Store, settings: Settings, listings: Listings) -> AbstractContextManager[None]:
    return _again_and_again("intake", lambda: take_hints(store, settings, listings), seconds=IDLE_SECONDS)


def _following_up(store: Store, settings: Settings) -> AbstractContextManager[None]:
    """What is still to do for runs that are done is tried again, in a thread of its own: nothing else waits for it."""

    def follow_up() -> None:
        while take_up(store, connect(settings)):
            pulse.beat("follow-ups", "collection")

    return _again_and_again("follow-ups", follow_up, seconds=FOLLOW_UP_SECONDS)


def _notifying(store: Store, settings: Settings) -> AbstractContextManager[None]:
    return _again_and_again("notify", lambda: notify(store, settings.notify), seconds=IDLE_SECONDS) if settings.notify else nullcontext()


@contextmanager
def _again_and_again(name: str, work: Callable[[], None], *, seconds: float) -> Iterator[None]:
    """Do the work in a thread of that name, each time after so many seconds, while the block runs; that it is alive, and whether it fails, shows in health."""
    rests_until = 0.0

    def once() -> bool:
        nonlocal rests_until
        if time.monotonic() < rests_until:
            pulse.beat(name, failing=True)
            return True
        if not _tried(name, work):
            rests_until = time.monotonic() + FAILING_SECONDS
        return True

    with pulse.part(name, limit=SILENCE), repeated(once, seconds=seconds, name=name):
        yield


def _tried(part: str, work: Callable[[], object]) -> bool:
    """Do the work of a part once; False when it failed for a reason that nobody foresaw, which must not end the part: nobody else does its work."""
    try:
        work()
    except Exception as error:
        if not is_away(error):
            log.exception("failed, tried again", part=part)
            pulse.beat(part, failing=True)
            return False
        log.warning("the database does not answer", part=part, error=redact(str(error)))
    pulse.beat(part)
    return True
