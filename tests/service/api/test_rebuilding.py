"""Signed requests to release again."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy
from fastapi.testclient import TestClient
from pydantic import SecretStr

from config.settings import Settings, Watched
from config.signing import sign
from service.api import create_app
from service.api.attempts import FAILURES
from service.api.rebuilding import WINDOW
from service.store import Store, watching

SECRET = "correct horse"
BODY = json.dumps({"repo": "upstream/model"}).encode()
SETTINGS = Settings(rebuild_secret=SecretStr(SECRET), watch=(Watched(owners=("upstream",)),))


@pytest.fixture
def client(store: Store) -> Iterator[TestClient]:
    with TestClient(create_app(store, SETTINGS)) as opened:
        yield opened


def asked(client: TestClient, body: bytes = BODY, *, at: float | None = None, **changes: str) -> Any:
    """The answer to a request signed at that time, some headers changed or, where empty, left out."""
    timestamp = int(time.time() if at is None else at)
    headers = {"X-Sluice-Timestamp": str(timestamp), "X-Sluice-Signature": sign(SECRET, timestamp, body)}
    headers |= {f"X-Sluice-{name.capitalize()}": value for name, value in changes.items()}
    return client.post("/webhooks/rebuild", content=body, headers={name: value for name, value in headers.items() if value})


def told(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_a_signed_request_leaves_a_hint_to_rebuild(client: TestClient, store: Store) -> None:
    answer = asked(client)
    assert (answer.status_code, answer.json()) == (202, {"status": "accepted", "repo": "upstream/model"})
    (hint,) = store.hints()
    assert (hint.repo, hint.source, hint.rebuild) == ("upstream/model", "rebuild", True)
    assert [(event.source, event.action) for event in store.audit_events(subject="repo/upstream/model")] == [("rebuild", "requested")]
    store.put_hints({"upstream/model": "poll"})
    assert store.hints()[0].rebuild, "what else is said of the repo does not take the wish back"


def test_a_request_counts_once(client: TestClient, store: Store) -> None:
    now = time.time()
    assert asked(client, at=now).status_code == 202
    assert told(asked(client, at=now)) == (409, "replayed")
    assert asked(client, at=now - 1).status_code == 202
    assert store.hints()[0].count == 2


@pytest.mark.parametrize("off", [-WINDOW - 5, WINDOW + 5])
def test_an_old_request_or_one_from_the_future_is_refused(client: TestClient, store: Store, off: int) -> None:
    answer = asked(client, at=time.time() + off)
    assert told(answer) == (401, "unauthorized")
    assert f"{'ahead of' if off > 0 else 'behind'} this service's clock, and 300 are allowed" in answer.json()["detail"]
    assert store.hints() == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"signature": ""},
        {"signature": "sha256="},
        {"signature": "sha256=" + "0" * 64},
        {"signature": sign("another", int(time.time()), BODY)},
        {"timestamp": ""},
        {"timestamp": "now"},
        {"timestamp": "1"},
        {"timestamp": "9" * 13},
    ],
)
def test_a_request_that_is_not_signed_so_is_refused(client: TestClient, store: Store, changes: dict[str, str]) -> None:
    answer = asked(client, at=time.time() - 10, **changes)
    assert told(answer) == (401, "unauthorized")
    assert SECRET not in answer.text
    assert store.hints() == ()


def test_the_signature_covers_the_body(client: TestClient) -> None:
    timestamp = int(time.time())
    headers = {"X-Sluice-Timestamp": str(timestamp), "X-Sluice-Signature": sign(SECRET, timestamp, BODY)}
    assert told(client.post("/webhooks/rebuild", content=BODY.replace(b"model", b"other"), headers=headers)) == (401, "unauthorized")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"repo": "https://a/b"}', b'{"repo": "a/b", "now": true}', b"\xff"])
def test_a_body_that_asks_for_nothing_is_explained(client: TestClient, store: Store, body: bytes) -> None:
    assert told(asked(client, body)) == (422, "invalid")
    assert store.hints() == ()


def test_what_is_not_watched_is_not_rebuilt(client: TestClient) -> None:
    assert told(asked(client, b'{"repo": "stranger/model"}')) == (404, "not_watched")


def test_without_a_secret_nothing_is_rebuilt(store: Store) -> None:
    with TestClient(create_app(store, SETTINGS.with_(rebuild_secret=SecretStr("")))) as client:
        assert told(asked(client)) == (503, "webhooks_off")


def test_a_request_that_could_not_be_kept_may_be_sent_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise sqlalchemy.exc.OperationalError("INSERT", None, OSError("disk full"))

    now = time.time()
    with TestClient(create_app(store, SETTINGS), raise_server_exceptions=False) as client:
        with monkeypatch.context() as patch:
            patch.setattr(watching, "note", full)
            assert asked(client, at=now).status_code == 500
        assert store.hints() == ()
        assert asked(client, at=now).status_code == 202
    assert store.hints()[0].rebuild


def test_wrong_signatures_are_limited_and_audited_and_lock_nobody_out(client: TestClient, store: Store) -> None:
    answers = [asked(client, signature="sha256=" + "0" * 64) for _ in range(FAILURES + 3)]
    assert [answer.status_code for answer in answers] == [401] * FAILURES + [429] * 3
    assert int(answers[-1].headers["Retry-After"]) > 0
    assert asked(client).status_code == 202
    events = [event for event in store.audit_events() if event.subject.startswith("login/")]
    assert [(event.action, event.details["path"]) for event in events] == [("limited", "/webhooks/rebuild"), ("refused", "/webhooks/rebuild")]


def test_what_is_signed_at_another_time_is_no_forgery(client: TestClient, store: Store) -> None:
    assert {told(asked(client, at=time.time() - 2 * WINDOW)) for _ in range(FAILURES + 2)} == {(401, "unauthorized")}
    assert store.audit_events() == ()
