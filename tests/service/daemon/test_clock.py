import time

from config.settings import Settings, Watched
from service.daemon.clock import poll, start_clock
from service.store import Store
from tests.service.helpers import eventually


def test_a_poll_hints_at_each_watched_repo_once(file_store: Store) -> None:
    poll(file_store, Settings(watch=(Watched(repo="a/b"), Watched(repo="c/d"), Watched(repo="a/b", revision="dev"))))
    assert [(hint.repo, hint.source, hint.count) for hint in file_store.hints()] == [("a/b", "poll", 1), ("c/d", "poll", 1)]


def test_the_clock_polls_at_once_and_again(file_store: Store) -> None:
    clock = start_clock(file_store, Settings(watch=(Watched(repo="a/b"),), poll_minutes=0.2 / 60))
    try:
        eventually(lambda: bool(file_store.hints()) and file_store.hints()[0].count >= 3)
    finally:
        clock.shutdown()
    count = file_store.hints()[0].count
    time.sleep(0.5)
    assert file_store.hints()[0].count == count


def test_nothing_watched_is_nothing_hinted(file_store: Store) -> None:
    poll(file_store, Settings())
    assert file_store.hints() == ()
