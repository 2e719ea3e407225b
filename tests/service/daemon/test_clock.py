import threading
import time

from config.settings import Settings
from service.daemon.clock import start_clock
from tests.service.helpers import eventually


def test_the_clock_polls_at_once_and_again() -> None:
    polls: list[str] = []
    clock = start_clock(Settings(poll_minutes=0.2 / 60), lambda: polls.append(threading.current_thread().name))
    try:
        eventually(lambda: len(polls) >= 3)
    finally:
        clock.shutdown()
    count = len(polls)
    time.sleep(0.5)
    assert len(polls) == count
    assert "MainThread" not in polls


def test_services_that_start_together_do_not_poll_together() -> None:
    clock = start_clock(Settings(poll_minutes=10), lambda: None)
    try:
        assert clock.get_jobs()[0].trigger.jitter == 60
    finally:
        clock.shutdown()
