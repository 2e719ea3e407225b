"""The list of upstream repos: watched, seen, run, published."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from config.settings import Settings, Watched
from service.api import create_app
from service.api.tokens import create_token
from service.store import LookKey, Published, Sighting, Store
from service.store.access import Grant
from tests.service.api.conftest import Headers
from tests.service.helpers import SHA, queue_run

WATCH = (Watched(repo="upstream/new", revision="stable"), Watched(owners=("qwen",), exclude=("*-base",), recipe="reference"))


@pytest.fixture
def client(store: Store, tmp_path: Path) -> Iterator[TestClient]:
    settings = Settings(home=tmp_path / "home", hub_endpoint="http://127.0.0.1:1", namespace="ours", watch=WATCH)
    with TestClient(create_app(store, settings), base_url="http://testserver/api/v1") as opened:
        yield opened


@pytest.fixture
def bearer(store: Store) -> Callable[..., Headers]:
    def make(namespaces: tuple[str, ...] | None = None) -> Headers:
        return {"Authorization": f"Bearer {create_token(store, f'token-{len(store.tokens())}', Grant(scopes=('read',), namespaces=namespaces))}"}

    return make


def ran(store: Store, repo: str, *, state: str = "done", published: str | None = None, **changes: object) -> int:
    run = queue_run(store, repo, **changes).id
    store.lease("worker", seconds=60, run=run)
    if published is not None:
        item = Published(repo=published, revision="1" * 40, url=f"http://hub/{published}", files=("README.md",), manifest_digest="m", changed=True)
        store.record_publication(run, item)
    store.finish(run, state=state)  # type: ignore[arg-type]
    return run


def listed(client: TestClient, headers: Headers, **asked: object) -> list[dict[str, Any]]:
    answer = client.get("/releases", headers=headers, params=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()["releases"]


def names(client: TestClient, headers: Headers, **asked: object) -> list[str]:
    return [item["repo"] for item in listed(client, headers, **asked)]


def test_a_repo_is_told_with_how_it_is_watched_what_was_seen_its_last_run_and_what_is_published(
    client: TestClient, store: Store, bearer: Callable[..., Headers]
) -> None:
    first = ran(store, "Qwen/Qwen3", published="ours/Qwen3-GGUF")
    second = ran(store, "Qwen/Qwen3", state="failed", recipe_digest="e" * 64)
    store.record_look(LookKey(repo="Qwen/Qwen3", revision="main", asked="a" * 64), "b" * 40)
    store.sight(Sighting(repo="Qwen/Qwen3", revision="main", recipe="reference", sha="c" * 40, newest="c" * 40, place=None))
    found, new = listed(client, bearer())
    assert found["watched"] == [{"revision": "main", "recipe": "reference"}]
    assert [(item["revision"], item["sha"]) for item in found["seen"]] == [("main", "c" * 40)], "the latest look at each branch"
    assert (found["run"]["run"], found["run"]["state"]) == (second, "failed")
    (current,) = found["published"]
    assert (current["repo"], current["revision"], current["sha"]) == ("ours/Qwen3-GGUF", "1" * 40, SHA)
    assert client.get(f"/publications/{current['publication']}", headers=bearer()).json()["run"] == first
    assert new == {"repo": "upstream/new", "watched": [{"revision": "stable", "recipe": "default"}], "seen": [], "run": None, "published": []}


def test_only_what_is_current_is_published(client: TestClient, store: Store, bearer: Callable[..., Headers]) -> None:
    ran(store, "Qwen/older", published="ours/one-GGUF")
    ran(store, "Qwen/newer", published="ours/one-GGUF")
    ran(store, "Qwen/gone", published="ours/gone-GGUF")
    store.record_unpublished(3, by="Ada", reason="licence", source="api", details={})
    told = {item["repo"]: [current["repo"] for current in item["published"]] for item in listed(client, bearer(), repo="Qwen/*")}
    assert told == {"Qwen/gone": [], "Qwen/newer": ["ours/one-GGUF"], "Qwen/older": []}


def test_the_list_is_filtered(client: TestClient, store: Store, bearer: Callable[..., Headers]) -> None:
    ran(store, "Qwen/a", state="failed")
    ran(store, "Qwen/a-base")
    ran(store, "other/b")
    ran(store, "other/b", state="held", recipe_digest="e" * 64)
    headers = bearer()
    assert names(client, headers) == ["other/b", "Qwen/a", "Qwen/a-base", "upstream/new"]
    assert names(client, headers, repo="Qwen/*") == ["Qwen/a", "Qwen/a-base"]
    assert names(client, headers, repo="Qwen/a") == ["Qwen/a"]
    assert names(client, headers, state="held") == ["other/b"]
    assert names(client, headers, state="done") == ["Qwen/a-base"], "the last run counts, and no earlier one"
    assert names(client, headers, watched=True) == ["Qwen/a", "upstream/new"]
    assert names(client, headers, watched=False, state="done") == ["Qwen/a-base"]
    assert client.get("/releases", headers=headers, params={"state": "asleep"}).json()["code"] == "invalid"
    assert client.get("/releases", headers=headers, params={"sort": "name"}).status_code == 422


def test_it_comes_in_pages_and_is_not_sent_again(client: TestClient, store: Store, bearer: Callable[..., Headers]) -> None:
    for number in range(5):
        ran(store, f"Qwen/m{number}")
    headers, seen, after = bearer(), [], None
    while True:
        answer = client.get("/releases", headers=headers, params={"limit": 2} | ({} if after is None else {"after": after}))
        page = answer.json()
        seen += [item["repo"] for item in page["releases"]]
        if (after := page["next"]) is None:
            break
        assert len(page["releases"]) == 2
    assert seen == [*(f"Qwen/m{number}" for number in range(5)), "upstream/new"]
    tag = client.get("/releases", headers=headers).headers["ETag"]
    assert client.get("/releases", headers={**headers, "If-None-Match": tag}).status_code == 304
    ran(store, "Qwen/m9")
    assert client.get("/releases", headers={**headers, "If-None-Match": tag}).status_code == 200


def test_a_token_for_some_namespaces_sees_the_repos_of_its_runs(client: TestClient, store: Store, bearer: Callable[..., Headers]) -> None:
    mine = ran(store, "Qwen/a", published="ours/a-GGUF")
    ran(store, "Qwen/a", namespace="theirs", state="failed", published="theirs/a-GGUF")
    ran(store, "Qwen/b", namespace="theirs")
    (found,) = listed(client, bearer(("ours",)))
    assert (found["repo"], found["run"]["run"], [item["repo"] for item in found["published"]]) == ("Qwen/a", mine, ["ours/a-GGUF"])
    assert listed(client, bearer(("ours",)), state="failed") == []
    assert client.get("/releases").status_code == 401
