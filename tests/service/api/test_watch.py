"""The watch list over the network."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from config.settings import Settings, Watched
from service.api import create_app, create_health_app
from service.api.tokens import create_token
from service.release.watchlist import entries
from service.store import Store
from service.store.outside import WatchRow

ENTRY = {"owners": ["Qwen"], "names": ["Qwen3-*"], "exclude": ["*-GGUF"], "minimum_downloads": 1000, "licenses": ["apache-2.0"], "cool_down_minutes": 60}


@pytest.fixture
def client(file_store: Store, tmp_path: Path) -> Iterator[TestClient]:
    settings = Settings(home=tmp_path, watch=(Watched(repo="upstream/model", recipe="gone"),))
    bearer = {"Authorization": f"Bearer {create_token(file_store, 'ci')}"}
    with TestClient(create_app(file_store, settings), headers=bearer) as opened:
        yield opened


def test_entries_are_added_changed_and_removed(client: TestClient) -> None:
    added = client.post("/api/v1/watch", json=ENTRY)
    assert added.status_code == 201
    where = added.headers["Location"]
    assert client.get(where).json() == added.json()
    said = client.get("/api/v1/watch").json()
    assert [(item["id"], item["source"], item["by"]) for item in said["entries"]] == [(None, "settings", None), (added.json()["id"], "api", "ci")]
    assert "no recipe named 'gone'" in said["entries"][0]["error"]
    assert {key: said["entries"][1]["entry"][key] for key in ENTRY} == ENTRY
    assert said["entries"][1]["error"] is None
    changed = client.put(where, json={"repo": "a/b"})
    assert (changed.status_code, changed.json()["entry"]["repo"], changed.json()["entry"]["owners"]) == (200, "a/b", [])
    assert client.delete(where).status_code == 204
    for answer in (client.get(where), client.put(where, json=ENTRY), client.delete(where)):
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "it follows nothing"),
        ({"owners": ["a"], "recipe": "/etc/passwd.yaml"}, "not a path"),
        ({"owners": ["a"], "recipe": "nosuch"}, "There is no recipe named 'nosuch'"),
        ({"owners": ["https://huggingface.co/a"]}, "owners"),
        ({"owners": ["a"], "minimum_downloads": 2**64}, "minimum_downloads"),
    ],
)
def test_an_entry_that_cannot_be_released_is_not_added(client: TestClient, body: dict[str, object], words: str) -> None:
    answer = client.post("/api/v1/watch", json=body)
    assert answer.status_code == 422
    assert words in answer.json()["detail"]
    assert len(client.get("/api/v1/watch").json()["entries"]) == 1


def test_health_looks_at_them_too(client: TestClient, file_store: Store) -> None:
    file_store.add_watch(Watched(owners=("a",), recipe="lost"), by="ci")
    with TestClient(create_health_app(file_store, Settings(watch=(Watched(repo="upstream/model", recipe="gone"),)))) as within:
        assert [item["repo"] for item in within.get("/api/v1/health").json()["watch"]] == ["upstream/model", "a/*"]
    assert [item["repo"] for item in client.get("/api/v1/health").json()["watch"]] == ["", ""], "without a token it is no more than that there are two"


def test_a_webhook_about_an_owners_repo_is_taken(client: TestClient, file_store: Store) -> None:
    settings = Settings(webhook_secret="s")
    payload = {"event": {"scope": "repo.content"}, "repo": {"type": "model", "name": "qwen/Qwen3-8B"}}
    with TestClient(create_app(file_store, settings), headers={"X-Webhook-Secret": "s"}) as hub:
        assert hub.post("/webhooks/huggingface", json=payload).json() == {"status": "ignored"}
        client.post("/api/v1/watch", json=ENTRY)
        assert hub.post("/webhooks/huggingface", json=payload).json() == {"status": "accepted"}
    assert [hint.repo for hint in file_store.hints()] == ["qwen/Qwen3-8B"]


def test_an_entry_that_is_sent_again_under_its_key_is_added_once(client: TestClient) -> None:
    first, again = (client.post("/api/v1/watch", json=ENTRY, headers={"Idempotency-Key": "1"}) for _ in range(2))
    assert (again.status_code, again.json(), again.headers["Location"]) == (first.status_code, first.json(), first.headers["Location"])
    assert again.headers["Idempotency-Replayed"] == "true"
    assert len(client.get("/api/v1/watch").json()["entries"]) == 2


@pytest.mark.parametrize("name", ["qwen/Qwen3-" + "x" * 300, "qwen/Qwen3-\0", "qwen/Qwen3-/../x", "qwen/Qwen3-\u202e", "https://qwen/Qwen3-8B"])
def test_what_no_repo_can_be_called_is_no_hint(client: TestClient, file_store: Store, name: str) -> None:
    client.post("/api/v1/watch", json=ENTRY)
    with TestClient(create_app(file_store, Settings(webhook_secret="s")), headers={"X-Webhook-Secret": "s"}) as hub:
        payload = {"event": {"scope": "repo.content"}, "repo": {"type": "model", "name": name}}
        assert hub.post("/webhooks/huggingface", json=payload).json() == {"status": "ignored"}
    assert file_store.hints() == ()


def test_an_entry_that_this_version_cannot_read_takes_no_other_away_and_is_told(client: TestClient, file_store: Store) -> None:
    with file_store.write() as session:
        session.add(WatchRow(entry={"owners": ["Qwen"], "minimum_stars": 3}, by="ci", created=datetime.now(UTC)))
        session.add(WatchRow(entry={"repo": "upstream/other"}, by="ci", created=datetime.now(UTC)))
    assert client.get("/api/v1/health").status_code == 503
    told = client.get("/api/v1/attention").json()["unreleasable"]
    assert [item["repo"] for item in told] == ["upstream/model", "entry 1 of the watch list"]
    assert "minimum_stars" in told[1]["error"]
    _, unread, sound = client.get("/api/v1/watch").json()["entries"]
    assert (unread["entry"], unread["id"], sound["entry"]["repo"], sound["error"]) == (None, 1, "upstream/other", None)
    assert "PUT /api/v1/watch/1" in unread["error"]
    assert [entry.label for entry in entries(file_store, Settings())] == ["upstream/other"]
    assert client.put("/api/v1/watch/1", json={"owners": ["Qwen"]}).status_code == 200
    assert [entry.label for entry in entries(file_store, Settings())] == ["Qwen/*", "upstream/other"]


def test_an_entry_that_cannot_be_read_may_be_removed(client: TestClient, file_store: Store) -> None:
    with file_store.write() as session:
        session.add(WatchRow(entry={}, by="ci", created=datetime.now(UTC)))
    tag = client.get("/api/v1/watch/1").headers["ETag"]
    assert client.delete("/api/v1/watch/1", headers={"If-Match": tag}).status_code == 204
