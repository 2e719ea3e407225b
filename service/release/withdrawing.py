"""A run that a person cancels or pauses while it is carried out: heard of at checkpoints, from the database."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError

from service.execution.leaving import Left, left_by
from service.execution.process import now
from service.store import Store, Wanted
from service.store.queue import ASKED

LOOK_SECONDS = 1.0  # between two looks into the database

log = logging.getLogger(__name__)


class Withdrawn(Left):
    """A person does not want the run to go on, for now or for good."""

    def __init__(self, wanted: Wanted) -> None:
        self.state = ASKED[wanted]
        super().__init__(self.state)


@contextmanager
def withdrawable(store: Store, run: int) -> Iterator[None]:
    """Raise Withdrawn at a checkpoint of the block when the run was cancelled, or paused and what was begun is whole."""
    looked = float("-inf")

    def asked(whole: bool) -> None:
        nonlocal looked
        if not whole and now() - looked < LOOK_SECONDS:
            return
        looked = now()
        try:
            wanted = store.wanted(run)
        except SQLAlchemyError as error:  # nobody's work is to end because the database is away for a moment
            log.warning("not known whether run %d is still wanted: %s", run, error, extra={"action": "withdraw"})
            return
        if wanted == "cancel" or (wanted == "pause" and whole):
            raise Withdrawn(wanted)

    with left_by(asked):
        yield
