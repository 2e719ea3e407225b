"""The daemon: API, clock and intake in threads, and in the main thread one worker that carries out a run at a time.

Several daemons may share one PostgreSQL: a run is leased by one worker at a time, so no leader is needed.
A daemon that is killed leaves its lease behind; it runs out, or is seen to belong to a dead process, and the run is taken up where it was.
"""

import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import structlog
import uvicorn
from sqlalchemy.exc import DBAPIError

from config.errors import ConfigurationError, SluiceError
from config.settings import Settings
from service.api import create_app
from service.daemon.clock import start_clock
from service.daemon.hints import take_hints
from service.daemon.worker import IDLE_SECONDS, Execute, Worker
from service.hubclient import connect
from service.logs import configure_logs
from service.release.checks.watch import broken
from service.release.gathering import take_up
from service.repeating import repeated
from service.store import Store, open_store

FOLLOW_UP_SECONDS = 5.0  # between two looks for what is still to do for runs that are done

log = structlog.get_logger(__name__)


def serve(settings: Settings, execute: Execute) -> None:
    """Serve until SIGTERM or SIGINT, which put the run at hand back into the queue. Prints the service's URL once it answers there.

    Must be called in the main thread. Raises ConfigurationError when a recipe of the watch list, the database or the address cannot be used.
    """
    _refuse_broken(settings)
    secrets = (settings.token, settings.webhook_secret.get_secret_value() if settings.webhook_secret else None)
    configure_logs(secrets=secrets)
    with closing(open_store(settings.database)) as store:
        store.hasten()  # an operator who starts it again may have cured what runs wait for
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


def _refuse_broken(settings: Settings) -> None:
    """A daemon that watches with a recipe that does not work would look sound and never release anything."""
    if found := broken(settings.watch):
        told = " ".join(f"{item.repo} (recipe {item.recipe}): {item.error}" for item in found)
        raise ConfigurationError(f"The watch list has entries that cannot be released. {told} Correct these recipes, or take the entries off the list.")


@contextmanager
def front(store: Store, settings: Settings) -> Iterator[str]:
    """Everything by which work comes in, running until the block ends: the API at the yielded URL, the clock, and the intake of hints."""
    with _api(store, settings) as url, _intake(store, settings), _following_up(store, settings):
        clock = start_clock(store, settings)
        try:
            yield url
        finally:
            clock.shutdown()


@contextmanager
def _api(store: Store, settings: Settings) -> Iterator[str]:
    listener = _listen(settings.api_host, settings.api_port)
    config = uvicorn.Config(
        create_app(store, settings),
        log_config=None,  # its loggers hand on to ours
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        limit_concurrency=200,
        timeout_graceful_shutdown=10,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="api", daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise SluiceError("The API did not start; the log above tells why.")
            time.sleep(0.01)
        host, port = listener.getsockname()[:2]
        yield f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else an answer waits 40 ms for the client to acknowledge its head
        return listener
    except OSError as error:
        raise ConfigurationError(
            f"The API cannot listen on {host}, port {port}: {error.strerror or error}. Change `api_host` or `api_port`, or stop what uses it."
        ) from error


@contextmanager
def _intake(store: Store, settings: Settings) -> Iterator[None]:
    api = connect(settings)

    def take() -> bool:
        try:
            take_hints(store, settings, api)
        except DBAPIError as error:
            log.warning("hints not read", error=str(error.orig))
        return True

    with repeated(take, seconds=IDLE_SECONDS, name="intake"):
        yield


@contextmanager
def _following_up(store: Store, settings: Settings) -> Iterator[None]:
    """What is still to do for runs that are done is tried again, in a thread of its own: nothing else waits for it."""

    def follow_up() -> bool:
        try:
            while take_up(store, connect(settings)):
                pass
        except DBAPIError as error:
            log.warning("follow-ups not read", error=str(error.orig))
        return True

    with repeated(follow_up, seconds=FOLLOW_UP_SECONDS, name="follow-ups"):
        yield
