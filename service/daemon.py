"""The daemon: API, clock and intake in threads, and in the main thread one worker that carries out a run at a time.

Several daemons may share one PostgreSQL: a run is leased by one worker at a time, so no leader is needed.
A daemon that is killed leaves its lease behind; it runs out, or is seen to belong to a dead process, and the run is taken up where it was.
"""

import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import structlog
import uvicorn
from sqlalchemy.exc import DBAPIError

from config.errors import ConfigurationError, SluiceError
from config.settings import Settings
from service.app import create_app
from service.background import repeated
from service.hubclient import connect
from service.intake import take_hints
from service.lease import LEASE_SECONDS, kept_lease
from service.logs import configure_logs, redact
from service.store import RunRecord, Store, open_store, worker_name
from service.watch import start_clock

IDLE_SECONDS = 1.0  # between two looks into an empty queue
TROUBLE_SECONDS = 5.0  # between two tries when the database does not answer

Execute = Callable[[Store, RunRecord], None]
"""Carries out a leased run and finishes it in the store; raises when it failed."""

log = structlog.get_logger(__name__)


class Stopped(BaseException):
    """A signal asked the service to stop while it was at something that may be left off. Not an Exception: a stage must not take it for its own failure."""


def serve(settings: Settings, execute: Execute) -> None:
    """Serve until SIGTERM or SIGINT, which put the run at hand back into the queue. Prints the service's URL once it answers there.

    Must be called in the main thread. Raises ConfigurationError when the database or the address cannot be used.
    """
    secrets = (settings.token, settings.webhook_secret.get_secret_value() if settings.webhook_secret else None)
    configure_logs(secrets=secrets)
    with closing(open_store(settings.database)) as store:
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


class Worker:
    """Leases runs and carries them out, one at a time, until it is stopped."""

    def __init__(self, store: Store, execute: Execute, *, name: str | None = None, seconds: float = LEASE_SECONDS) -> None:
        self._store = store
        self._execute = execute
        self._name = name or worker_name()
        self._seconds = seconds
        self._stopping = False
        self._interruptible = False

    def stop(self) -> None:
        """Let `work` end after the run at hand."""
        self._stopping = True

    def interrupt(self, *_signal: object) -> None:
        """As a signal handler in the thread of `work`: let it end now, in the middle of a run, by raising Stopped there."""
        self._stopping = True
        if self._interruptible:
            self._interruptible = False
            raise Stopped

    def work(self) -> None:
        """Carry out runs as they come. Returns when stopped."""
        try:
            while not self._stopping:
                try:
                    self._work_once()
                except DBAPIError as error:
                    log.warning("the database does not answer", error=str(error.orig))
                    self._rest(TROUBLE_SECONDS)
        except Stopped:
            log.info("stopped")

    def _work_once(self) -> None:
        run = self._store.lease(self._name, seconds=self._seconds)
        if run is None:
            self._rest(IDLE_SECONDS)
            return
        log.info("run leased", run=run.id, repo=run.release.repo, sha=run.release.sha, attempt=run.attempt)
        with kept_lease(self._store, run, self._name, seconds=self._seconds):
            self._carry_out(run)
        log.info("run left", run=run.id, state=self._store.run(run.id).state)

    def _carry_out(self, run: RunRecord) -> None:
        error = "The program did not say how the run ended. This is a bug; its log may tell more."
        try:
            with self._interrupted_by_stop():
                self._execute(self._store, run)
        except Stopped:
            self._store.release(run.id, self._name)
            raise
        except SluiceError as expected:
            error = str(expected)
            log.warning("run failed", run=run.id, error=error)
        except Exception as unexpected:
            error = f"{type(unexpected).__name__}: {unexpected}"
            log.exception("run failed", run=run.id)
        self._store.finish(run.id, state="failed", error=redact(error), worker=self._name)  # changes nothing when the run was finished, as it should be

    def _rest(self, seconds: float) -> None:
        with self._interrupted_by_stop():
            time.sleep(seconds)

    @contextmanager
    def _interrupted_by_stop(self) -> Iterator[None]:
        """Only inside may a signal raise: never in the middle of a transaction."""
        self._interruptible = True
        try:
            if self._stopping:
                raise Stopped
            yield
        finally:
            self._interruptible = False


@contextmanager
def front(store: Store, settings: Settings) -> Iterator[str]:
    """Everything by which work comes in, running until the block ends: the API at the yielded URL, the clock, and the intake of hints."""
    with _api(store, settings) as url, _intake(store, settings):
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
        return socket.create_server((host, port), family=family)
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
