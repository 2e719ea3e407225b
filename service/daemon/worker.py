"""The worker: leases runs and carries them out, one at a time, until it is stopped."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
from sqlalchemy.exc import SQLAlchemyError

from config.errors import SluiceError, Unavailable
from service.logs import labelled, redact
from service.pulse import pulse
from service.store import LeaseLost, RunRecord, Store, worker_name
from service.store.database import is_away, passes
from service.store.lease import LEASE_SECONDS, kept_lease

IDLE_SECONDS = 1.0  # between two looks into an empty queue
TROUBLE_SECONDS = 5.0  # between two tries when the database does not answer
FAILING_SECONDS = 60.0  # between two tries of what failed for a reason that nobody foresaw

Execute = Callable[[Store, RunRecord], None]
"""Carries out a leased run and finishes it in the store; raises when it failed."""

log = structlog.get_logger(__name__)


class Stopped(BaseException):
    """A signal asked the service to stop while it was at something that may be left off. Not an Exception: a stage must not take it for its own failure."""


class Worker:
    """Leases runs and carries them out, one at a time, until it is stopped."""

    def __init__(
        self, store: Store, execute: Execute, *, name: str | None = None, seconds: float = LEASE_SECONDS, may_begin: Callable[[], bool] = lambda: True
    ) -> None:
        """`may_begin` is asked before each run whether one may be begun now."""
        self._store = store
        self._execute = execute
        self._may_begin = may_begin
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
                except Exception as error:  # whatever it is, it must not end the worker: there are other runs
                    if away := is_away(error):
                        log.warning("the database does not answer", error=redact(str(error)))
                    else:
                        log.exception("failed, tried again", part="worker")
                    pulse.beat("worker", failing=not away)
                    self._rest(TROUBLE_SECONDS if away else FAILING_SECONDS)
        except Stopped:
            log.info("stopped")

    def _work_once(self) -> None:
        # after an outage who carries a run out renews its lease within a third of that; before, that it has run out says nothing
        steady = self._store.steady() >= self._seconds
        run = self._store.lease(self._name, seconds=self._seconds, overdue=steady) if self._may_begin() else None
        pulse.beat("worker")  # no sooner: what fails time and again is told as failing all the while
        if run is None:
            self._rest(IDLE_SECONDS)
            return
        log.info("run leased", run=run.id, repo=run.release.repo, sha=run.release.sha, attempt=run.attempt)
        with labelled(run=run.id), kept_lease(self._store, run, self._name, seconds=self._seconds):
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
        except LeaseLost:
            log.warning("run left to another worker, which has its lease", run=run.id)
            return
        except Unavailable as fault:  # and the run is put back already
            error = str(fault)
            log.info("run waits", run=run.id, waits_for=fault.what, error=error)
        except SluiceError as expected:
            error = str(expected)
            log.warning("run failed", run=run.id, error=error)
        except Exception as unexpected:
            if passes(unexpected):
                self._put_back(run, unexpected)
                return
            error = f"{type(unexpected).__name__}: {unexpected}"
            log.exception("run failed", run=run.id)
        self._store.finish(run.id, state="failed", error=redact(error), lease=run.lease)  # changes nothing when the run was finished, as it should be

    def _put_back(self, run: RunRecord, fault: Exception) -> None:
        """Give back a run that the database kept from going on, as soon as it takes that: it costs no attempt, and goes on where it was."""
        while True:
            log.warning("run put back, because the database does not answer", run=run.id, error=redact(str(fault)))
            pulse.beat("worker", "database")
            self._rest(TROUBLE_SECONDS)
            try:
                self._store.release(run.id, self._name)
            except SQLAlchemyError as error:
                if not is_away(error):
                    raise
                fault = error
            else:
                return

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
