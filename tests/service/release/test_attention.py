"""What a person should look at is told alike by `sluice status`, the API and the dashboard's first page."""

import re
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.clock import Clock
from config.settings import Settings, Watched
from service.api.tokens import create_token
from service.cli.main import app
from service.pulse import pulse
from service.release.attention import Attention, attention
from service.store import Store, open_store
from service.store.backlog import UNTAKEN
from tests.service.dashboard.conftest import dashboard
from tests.service.helpers import queue_run

FULL = {"pause": 10**15, "free": 2 * 10**15}


def still_to_do(store: Store, clock: Clock) -> None:
    store.put_follow_up(queue_run(store).id, "collection", {}, error="The Hub is down.", seconds=3600, source="test")


def not_queued(store: Store, clock: Clock) -> None:
    store.put_hints({"upstream/gone": "poll"})
    store.defer_hint(store.hints()[0], error="There is no such repo.", seconds=3600)


def not_listed(store: Store, clock: Clock) -> None:
    store.record_listings({"qwen": "There is no account of that name."})


def unreleasable(store: Store, clock: Clock) -> None:
    store.add_watch(Watched(repo="upstream/model", recipe="/no/recipe.yaml"), by="ada")


def untaken(store: Store, clock: Clock) -> None:
    queue_run(store)
    clock.at += 2 * UNTAKEN


def nothing(store: Store, clock: Clock) -> None:
    """All is well, but for the disk."""


CASES: dict[str, Callable[[Store, Clock], None]] = {item.__name__: item for item in (still_to_do, not_queued, not_listed, unreleasable, untaken)}


def said(found: Attention) -> list[str]:
    """Every sentence."""
    lists = [item.said for item in (*found.still_to_do, *found.unwell)]
    errors = [item.error for item in (*found.not_queued, *found.not_listed, *found.unreleasable)]
    return [*lists, *errors, *(text for text in (found.paused, found.untaken) if text is not None)]


def words(text: str) -> str:
    """A page, or what a command prints, as a person reads it."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", re.sub(r"[\d.]+ GB", "N GB", text))))  # what is free changes meanwhile


@pytest.mark.parametrize("name", [*CASES, "paused", "a part that is stuck", "a part that fails"])
def test_it_is_told_in_every_place(tmp_path: Path, clock: Clock, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(home=tmp_path / "home", keep=FULL if name == "paused" else {}, hub_endpoint="http://127.0.0.1:1")
    (tmp_path / "settings.yaml").write_text(
        f"home: {tmp_path / 'home'}\n" + (f"keep: {{pause: {FULL['pause']}, free: {FULL['free']}}}\n" if name == "paused" else "")
    )
    store = open_store(settings.database)
    CASES.get(name, nothing)(store, clock)
    part = {"a part that is stuck": "poll", "a part that fails": "intake"}.get(name)
    with pulse.part(part or "worker", limit=-1.0 if name == "a part that is stuck" else 600.0):
        if name == "a part that fails":
            pulse.beat("intake", failing=True)
        found = said(attention(store, settings))
        assert len(found) == 1
        token = create_token(store, "person")
        browser = dashboard(store, settings)
        assert browser.post("/sign-in", data={"token": token}).status_code == 200
        page = browser.get("/").text
        assert words(found[0]) in words(page)
        assert "Needs you" in page
        stuck = name in {"paused", "untaken", "a part that is stuck", "a part that fails"}
        assert ("The next release begins by itself." in page) is not stuck
        monkeypatch.setenv("SLUICE_CONFIG", str(tmp_path / "settings.yaml"))
        assert words(found[0]) in words(CliRunner().invoke(app, ["status"]).output)
    store.close()


def test_nobody_is_told_of_a_queue_that_rests_on_purpose(tmp_path: Path, file_store: Store, clock: Clock) -> None:
    untaken(file_store, clock)
    full = attention(file_store, Settings(home=tmp_path, keep=FULL))
    assert (full.untaken, full.paused is None) == (None, False)
