"""What an entry of the watch list makes of what the Hub says about a repo."""

from datetime import UTC, datetime, timedelta

import pytest

from config.settings import Settings
from config.watch import Watched
from service.release.watchlist import Listed, asked, cooling, entries, following, refusal
from service.store import Store

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FINE = {"repo": "a/b", "sha": "0" * 40, "modified": NOW, "private": False, "gated": False, "tags": frozenset({"license:mit", "chat"}), "downloads": 50}


@pytest.mark.parametrize(
    ("entry", "listed", "reason"),
    [
        ({"owners": ["a"]}, {}, None),
        ({"owners": ["a"], "tags": ["Chat"], "licenses": ["MIT", "apache-2.0"], "minimum_downloads": 50}, {}, None),
        ({"owners": ["a"], "tags": ["chat", "moe"]}, {}, "it lacks the tag moe"),
        ({"owners": ["a"], "minimum_downloads": 51}, {}, "it has 50 downloads, and 51 are asked for"),
        ({"owners": ["a"], "licenses": ["apache-2.0"]}, {}, "its licence is mit, and apache-2.0 is asked for"),
        ({"owners": ["a"], "licenses": ["mit"]}, {"tags": frozenset()}, "its licence is not stated, and mit is asked for"),
        ({"owners": ["a"]}, {"private": True}, "it is private"),
        ({"owners": ["a"]}, {"gated": True}, "it is gated"),
        (
            {"owners": ["a"]},
            {"tags": frozenset({"gguf"})},
            "it is there in GGUF alone, as what quantizers publish is; name it in `repos` to have it released from that",
        ),
        ({"owners": ["a"]}, {"tags": frozenset({"gguf", "safetensors"})}, None),
        ({"owners": ["a"], "repos": ["a/b"]}, {"tags": frozenset({"gguf"})}, None),
        ({"owners": ["a"], "private": "follow", "gated": "follow"}, {"private": True, "gated": True}, None),
        ({"repo": "A/B"}, {"private": True, "gated": True}, None),
        ({"repo": "a/b", "private": "skip"}, {"private": True}, "it is private"),
    ],
)
def test_what_an_entry_asks_for(entry: dict[str, object], listed: dict[str, object], reason: str | None) -> None:
    assert refusal(Watched.model_validate(entry), Listed(**{**FINE, **listed})) == reason


def test_a_repo_cools_down_before_it_is_released() -> None:
    entry, listed = Watched(owners=("a",), cool_down_minutes=60), Listed(**FINE)
    assert cooling(entry, listed, NOW + timedelta(minutes=20)) == 40 * 60
    assert cooling(entry, listed, NOW + timedelta(minutes=60)) == 0
    assert cooling(Watched(owners=("a",)), listed, NOW) == 0
    assert cooling(entry, Listed(**{**FINE, "modified": None}), NOW) == 0


def test_the_list_is_that_of_the_settings_and_what_was_added(store: Store) -> None:
    settings = Settings(watch=(Watched(repo="a/b"),))
    added = store.add_watch(Watched(owners=("c",), names=("d*",)), by="ci")
    assert [entry.label for entry in entries(store, settings)] == ["a/b", "c/d*"]
    assert [entry.label for entry in following(entries(store, settings), "C/D-1")] == ["c/d*"]
    store.change_watch(added.id, Watched(repo="e/f"), by="ci")
    assert [entry.label for entry in entries(store, settings)] == ["a/b", "e/f"]
    store.remove_watch(added.id, by="ci")
    assert entries(store, settings) == settings.watch
    assert [event.action for event in store.audit_events(subject=f"watch/{added.id}")] == ["removed", "changed", "added"]


def test_what_is_asked_changes_with_recipe_and_namespace() -> None:
    assert len({asked("r", None), asked("s", None), asked("r", "acme")}) == 3
