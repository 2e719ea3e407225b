"""Keeps the lease of a run alive while it is carried out."""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from sqlalchemy.exc import SQLAlchemyError

from service.logs import redact
from service.repeating import repeated
from service.store import RunRecord, Store

LEASE_SECONDS = 30.0  # how long a run stays with a worker that gives no sign of life

log = structlog.get_logger(__name__)


@contextmanager
def kept_lease(store: Store, run: RunRecord, worker: str, *, seconds: float = LEASE_SECONDS) -> Iterator[None]:
    """Renew the lease of `run` in a thread, three times in each of its lengths, until the block ends."""

    def renew() -> bool:
        try:
            return store.renew(run.id, worker, seconds)  # False: finished, or taken over by another worker after a long pause of this machine
        except SQLAlchemyError as error:  # that all connections are in use at the moment is one as well
            log.warning("lease not renewed", run=run.id, error=redact(str(error)))
            return True

    with repeated(renew, seconds=seconds / 3, name=f"lease of run {run.id}"):
        yield
