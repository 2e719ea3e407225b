from collections.abc import Callable

import pytest

from service.execution.leaving import checkpoint
from service.release.withdrawing import Withdrawn, withdrawable
from service.store import Store
from tests.service.helpers import queue_run

ASKED = {"source": "test", "details": {}}


@pytest.fixture
def run(file_store: Store) -> int:
    number = queue_run(file_store).id
    file_store.lease("worker", seconds=60)
    return number


def test_a_run_that_nobody_withdrew_goes_on(file_store: Store, run: int) -> None:
    checkpoint(whole=True)
    with withdrawable(file_store, run):
        checkpoint()
        checkpoint(whole=True)


@pytest.mark.parametrize(("ask", "whole", "state"), [("cancel", False, "cancelled"), ("cancel", True, "cancelled"), ("pause", True, "paused")])
def test_a_withdrawn_run_is_left_at_the_next_checkpoint(file_store: Store, run: int, ask: str, whole: bool, state: str) -> None:
    wish: Callable[..., object] = getattr(file_store, ask)
    wish(run, **ASKED)
    with pytest.raises(Withdrawn) as left, withdrawable(file_store, run):
        checkpoint(whole=whole)
    assert left.value.state == state


def test_a_pause_lets_the_stage_at_hand_be_done(file_store: Store, run: int) -> None:
    file_store.pause(run, **ASKED)
    with withdrawable(file_store, run):
        checkpoint()
