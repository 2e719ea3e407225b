from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from service.store import Store, StoreError
from service.store.tables import UtcDateTime


def test_a_hint_given_twice_is_one_look(store: Store) -> None:
    store.put_hints({"a/b": "poll"})
    store.put_hints({"a/b": "webhook"})
    (hint,) = store.hints(due=True)
    assert (hint.repo, hint.source, hint.count, hint.attempts) == ("a/b", "webhook", 2, 0)
    store.settle_hint(hint)
    assert store.hints() == ()


def test_a_hint_given_while_it_is_looked_at_asks_for_another_look(store: Store) -> None:
    store.put_hints({"a/b": "poll"})
    (hint,) = store.hints()
    store.put_hints({"a/b": "webhook"})
    store.settle_hint(hint)
    assert len(store.hints(due=True)) == 1


def test_a_hint_given_anew_is_not_settled_by_an_old_look(store: Store) -> None:
    store.put_hints({"a/b": "poll"})
    (hint,) = store.hints()
    store.settle_hint(hint)  # by another daemon
    store.put_hints({"a/b": "webhook"})
    store.settle_hint(hint)
    assert len(store.hints(due=True)) == 1


def test_a_failed_look_is_had_later_or_when_the_hint_is_given_again(store: Store) -> None:
    store.put_hints({"a/b": "poll"})
    store.defer_hint(store.hints()[0], error="down", seconds=60)
    assert store.hints(due=True) == ()
    (hint,) = store.hints()
    assert (hint.attempts, hint.error) == (1, "down")
    store.defer_hint(hint, error="down", seconds=60)
    store.put_hints({"a/b": "poll"})
    assert store.hints(due=True)[0].attempts == 2
    assert [event.action for event in store.audit_events(subject="repo/a/b")] == ["deferred"]  # the same failure is told once


def test_audit_events_are_kept_in_order(store: Store) -> None:
    store.audit("api", "run/1", "requested", {"token": "ci"})
    store.audit("command", "run/2", "requested", {})
    newest, oldest = store.audit_events()
    assert (oldest.source, oldest.subject, oldest.action, oldest.details) == ("api", "run/1", "requested", {"token": "ci"})
    assert newest.at >= oldest.at
    assert store.audit_events(subject="run/2") == (newest,)
    assert store.audit_events(limit=1) == (newest,)


@pytest.mark.parametrize("statement", ["UPDATE audit_events SET action = 'nothing'", "DELETE FROM audit_events"])
def test_the_audit_trail_cannot_be_rewritten(store: Store, database_url: str, statement: str) -> None:
    store.audit("api", "run/1", "requested", {})
    engine = create_engine(database_url)
    with engine.connect() as connection, pytest.raises(DBAPIError, match="append-only"):
        connection.execute(text(statement))
    engine.dispose()
    assert len(store.audit_events()) == 1


def test_a_token_name_is_used_once(store: Store) -> None:
    store.add_token("ci", "a" * 64)
    store.revoke_token("ci")
    with pytest.raises(StoreError, match="is or was a token named 'ci'"):
        store.add_token("ci", "b" * 64)
    with pytest.raises(StoreError, match="no working token named 'ci'"):
        store.revoke_token("ci")
    (token,) = store.tokens()
    assert (token.name, token.digest) == ("ci", "a" * 64)
    assert token.revoked is not None
    assert [event.action for event in store.audit_events(subject="token/ci")] == ["revoked", "created"]


def test_times_are_utc_on_every_database(store: Store) -> None:
    store.audit("test", "clock", "read", {})
    at = store.audit_events()[0].at
    assert at.tzinfo is UTC
    assert abs(datetime.now(UTC) - at) < timedelta(minutes=1)


def test_a_time_is_stored_in_utc_whatever_its_zone() -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    assert UtcDateTime().process_bind_param(noon, None).hour == 10
    with pytest.raises(ValueError, match="without a zone"):
        UtcDateTime().process_bind_param(datetime(2026, 1, 1), None)  # noqa: DTZ001


def test_the_number_of_a_request_makes_no_fault_another_one(store: Store) -> None:
    for number in range(3):
        store.put_hints({"a/b": "poll"})
        store.defer_hint(store.hints()[0], error=f"The Hub answered 503 (request {number:x}-ab). Run it again.", seconds=1)
    assert [event.details["error"] for event in store.audit_events(subject="repo/a/b")] == ["The Hub answered 503 (request 0-ab). Run it again."]
    assert store.hints()[0].error == "The Hub answered 503 (request 2-ab). Run it again."
