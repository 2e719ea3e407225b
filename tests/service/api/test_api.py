import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from bench.clock import Clock
from config.errors import ConfigurationError, HubError, ToolError, UpstreamError
from config.progress import Progress
from config.settings import Settings, Watched
from config.wire import LARGEST
from service.api import create_app, create_health_app
from service.api.attempts import FAILURES
from service.api.errors import status_of
from service.api.guard import MAX_BODY
from service.api.tokens import create_token, revoke_token
from service.store import KeptRecipe, Published, Store
from service.store.backlog import UNTAKEN
from tests.service.helpers import SHA, queue_run

SECRET = "the Hub's secrét"
HOOK = "/webhooks/huggingface"
CONTENT = {"event": {"action": "update", "scope": "repo.content"}, "repo": {"type": "model", "name": "upstream/model", "headSha": "f" * 40}}

RECIPE = str(Path(__file__).parents[3] / "demo" / "recipe.yaml")

SETTINGS = Settings(
    hub_endpoint="http://127.0.0.1:1",
    namespace="ours",
    webhook_secret=SecretStr(SECRET),
    watch=(Watched(repo="upstream/model", recipe=RECIPE), Watched(repo="upstream/other", recipe=RECIPE)),
)


@pytest.fixture
def client(file_store: Store) -> Iterator[TestClient]:
    with TestClient(create_app(file_store, SETTINGS), raise_server_exceptions=False) as opened:
        yield opened


@pytest.fixture
def bearer(file_store: Store) -> dict[str, str]:
    return {"Authorization": f"Bearer {create_token(file_store, 'ci')}"}


def hook(client: TestClient, payload: object, secret: str | None = SECRET) -> Any:
    headers = {} if secret is None else {"X-Webhook-Secret": secret.encode()}
    return client.post(HOOK, content=payload if isinstance(payload, bytes) else json.dumps(payload), headers=headers)


def code(response: Any) -> str:
    """The error's code, after a look at the rest of the body."""
    body = response.json()
    assert response.headers["Content-Type"] == "application/problem+json"
    assert set(body) == {"type", "title", "status", "detail", "code", "request_id"}
    assert (body["status"], body["type"]) == (response.status_code, f"urn:sluice:problem:{body['code']}")
    assert body["request_id"] == response.headers["X-Request-Id"]
    return body["code"]


def test_health_needs_no_token(client: TestClient) -> None:
    response = client.get("/api/v1/health")
    assert response.status_code == 200
    sound = {"status": "ok", "database": True, "watch": [], "parts": [], "queue": {"runs": 0, "since": None, "stuck": False}, "disk": None, "version": ""}
    assert response.json() | {"version": "", "disk": None} == sound
    assert response.json()["disk"]["paused"] is False
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"


def test_health_fails_with_the_database(client: TestClient, file_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_store, "healthy", lambda: False)
    response = client.get("/api/v1/health")
    assert (response.status_code, response.json()["status"]) == (503, "failing")


def test_health_fails_with_a_watched_recipe(file_store: Store, tmp_path: Path) -> None:
    recipe = tmp_path / "own.yaml"
    recipe.write_text(Path(RECIPE).read_text().replace("data/", f"{Path(RECIPE).parent}/data/"))
    settings = SETTINGS.with_(watch=(Watched(repo="upstream/model", recipe=str(recipe)),))
    with TestClient(create_health_app(file_store, settings)) as client, TestClient(create_app(file_store, settings)) as open_to_all:
        assert client.get("/api/v1/health").status_code == 200
        recipe.write_text(recipe.read_text().replace("kld.mean", "kld.meen"))
        response = client.get("/api/v1/health")
        assert (response.status_code, response.json()["status"], response.json()["database"]) == (503, "failing", True)
        error = "Gate divergence is on kld.meen, which nothing in this recipe measures. Did you mean kld.mean?"
        assert response.json()["watch"] == [{"repo": "upstream/model", "recipe": str(recipe), "error": error}]
        unnamed = open_to_all.get("/api/v1/health")
        assert unnamed.status_code == 503
        assert [(item["repo"], item["recipe"]) for item in unnamed.json()["watch"]] == [("", "")]
        assert "GET /api/v1/attention with a token for all namespaces, say which and why" in unnamed.text
        recipe.unlink()
        assert client.get("/api/v1/health").json()["watch"][0]["error"] == "own.yaml does not exist. Create it, or name another file."


@pytest.mark.parametrize("paused", [False, True])
def test_health_fails_with_a_queue_that_nobody_takes_from_unless_that_is_on_purpose(file_store: Store, tmp_path: Path, clock: Clock, paused: bool) -> None:
    keep = {"pause": 10**15, "free": 2 * 10**15} if paused else {}
    queue_run(file_store)
    with TestClient(create_app(file_store, Settings(home=tmp_path, keep=keep))) as client:
        assert client.get("/api/v1/health").json()["queue"]["stuck"] is False
        clock.at += 2 * UNTAKEN
        told = client.get("/api/v1/health")
        assert (told.status_code, told.json()["queue"]["stuck"], told.json()["disk"]["paused"]) == (503, not paused, paused)
        assert client.get("/api/v1/live").status_code == 200, "to start it again is no cure of what another service does not do"


def test_the_api_documents_itself(client: TestClient) -> None:
    described = client.get("/api/v1/openapi.json").json()
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            assert "default" not in operation["responses"], "a status that may be anything tells nothing"
            assert operation["summary"], (method, path)
            if path.startswith("/api/v1/") and path not in {"/api/v1/health", "/api/v1/live"}:
                assert operation["security"] == [{"token": []}], path
                assert {"401", "422", "429"} <= set(operation["responses"]), path
                changes = method != "get" and not path.startswith("/api/v1/recipes/")
                assert not changes or {"403", "404", "409", "413"} <= set(operation["responses"]), path
    assert "security" not in described["paths"]["/api/v1/health"]["get"]
    assert described["paths"]["/api/v1/runs/{id}"]["get"]["security"] == [{"token": []}]
    assert "RunSummary" in described["components"]["schemas"]
    page = client.get("/api/v1/docs")
    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert all(path in page.text for path in described["paths"])
    assert "<script" not in page.text
    assert "src=" not in page.text, "it loads nothing from elsewhere"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/runs"),
        ("POST", "/runs"),
        ("GET", "/runs/1"),
        ("GET", "/runs/1/report"),
        ("GET", "/runs/1/recipe"),
        ("POST", "/runs/1/approve"),
        ("GET", "/publications/1"),
        ("POST", "/publications/1/republish"),
        ("POST", "/publications/1/rollback"),
        ("GET", "/watch"),
        ("POST", "/watch"),
        ("PUT", "/watch/1"),
        ("DELETE", "/watch/1"),
    ],
)
def test_everything_else_needs_a_token_that_works(client: TestClient, file_store: Store, bearer: dict[str, str], method: str, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer sluice_wrong"}, {"Authorization": bearer["Authorization"].replace("Bearer", "Basic")}):
        response = client.request(method, f"/api/v1{path}", headers=headers)
        assert (response.status_code, code(response), response.headers["WWW-Authenticate"]) == (401, "unauthorized", "Bearer")
    revoke_token(file_store, "ci")
    assert client.request(method, f"/api/v1{path}", headers=bearer).status_code == 401


def test_runs_are_listed_by_page(client: TestClient, file_store: Store, bearer: dict[str, str]) -> None:
    ids = [queue_run(file_store, f"upstream/{name}").id for name in "abc"]
    first = client.get("/api/v1/runs?limit=2", headers=bearer).json()
    assert [run["run"] for run in first["runs"]] == ids[:0:-1]
    second = client.get(f"/api/v1/runs?limit=2&before={first['next']}", headers=bearer).json()
    assert ([run["run"] for run in second["runs"]], second["next"]) == (ids[:1], None)
    assert second["runs"][0]["release"] == {"repo": "upstream/a", "sha": SHA}
    assert client.get("/api/v1/runs?state=done", headers=bearer).json()["runs"] == []
    assert code(client.get("/api/v1/runs?limit=0", headers=bearer)) == "invalid"


def test_a_run_that_nobody_carries_out_any_more_is_interrupted(client: TestClient, file_store: Store, bearer: dict[str, str]) -> None:
    run = queue_run(file_store).id
    file_store.lease("worker", seconds=0)
    file_store.stage_progressed(file_store.stage_started(run, "measure", "k", estimate=60.0), Progress(done=10, total=40, unit="windows"))
    body = client.get(f"/api/v1/runs/{run}", headers=bearer).json()
    progress = {"done": 10, "total": 40, "unit": "windows", "rate": None, "left": None}
    (stage,) = body["stages"]
    assert (body["state"], stage["state"], stage["estimate"], stage["progress"]) == ("interrupted", "interrupted", 60.0, progress)
    assert [item["state"] for item in client.get("/api/v1/runs?state=interrupted", headers=bearer).json()["runs"]] == ["interrupted"]
    assert client.get("/api/v1/runs?state=running", headers=bearer).json()["runs"] == []


def test_a_run_is_told_as_its_summary(client: TestClient, file_store: Store, bearer: dict[str, str]) -> None:
    run = queue_run(file_store)
    body = client.get(f"/api/v1/runs/{run.id}", headers=bearer).json()
    assert (body["run"], body["state"], body["release"]["repo"]) == (run.id, "queued", "upstream/model")
    response = client.get("/api/v1/runs/99", headers=bearer)
    assert (response.status_code, code(response)) == (404, "not_found")
    assert code(client.get("/api/v1/runs/one", headers=bearer)) == "invalid"


def test_a_publication_can_be_made_again(client: TestClient, file_store: Store, bearer: dict[str, str]) -> None:
    run = queue_run(file_store)
    file_store.keep_recipe(KeptRecipe(digest=run.recipe_digest, content={}, sources=()))
    file_store.lease("worker", seconds=60)
    number = file_store.record_publication(
        run.id, Published(repo="ours/m", revision="1" * 40, url="http://hub", files=("README.md",), manifest_digest="m", changed=True)
    )
    file_store.finish(run.id, state="done")
    assert client.get(f"/api/v1/publications/{number}", headers=bearer).json()["repo"] == "ours/m"
    for _ in range(2):
        response = client.post(f"/api/v1/publications/{number}/republish", headers=bearer)
        assert response.status_code == 202
        assert (response.json()["run"], response.json()["state"]) == (run.id, "queued")
        assert response.headers["Location"] == f"/api/v1/runs/{run.id}"
    again = file_store.run(run.id)
    assert (again.trigger, again.attempt) == ("republish", 2)
    event = file_store.audit_events(subject=f"publication/{number}")[0]
    assert (event.source, event.action, event.details) == ("api", "republish", {"token": "ci", "run": run.id})
    assert code(client.post("/api/v1/publications/99/republish", headers=bearer)) == "not_found"


@pytest.mark.parametrize(
    "body",
    [
        {"repo": "https://huggingface.co/upstream/model"},
        {"repo": "../secrets"},
        {"repo": "upstream/model", "revision": "../main"},
        {"repo": "upstream/model", "recipe": "/etc/passwd.yaml"},
        {"repo": "upstream/model", "recipe": "passwd.yaml"},
        {"repo": "upstream/model", "namespace": "theirs"},
        {},
        [],
        "upstream/model",
    ],
)
def test_a_run_request_names_a_repo_and_nothing_dangerous(client: TestClient, bearer: dict[str, str], body: object) -> None:
    response = client.post("/api/v1/runs", json=body, headers=bearer)
    assert (response.status_code, code(response)) == (422, "invalid")


def test_a_run_request_that_is_no_json_is_refused(client: TestClient, bearer: dict[str, str]) -> None:
    response = client.post("/api/v1/runs", content=b"{repo", headers={**bearer, "Content-Type": "application/json"})
    assert (response.status_code, code(response)) == (422, "invalid")


def test_an_unknown_recipe_is_refused(client: TestClient, bearer: dict[str, str]) -> None:
    response = client.post("/api/v1/runs", json={"repo": "upstream/model", "recipe": "nosuch"}, headers=bearer)
    assert (response.status_code, code(response)) == (422, "unusable_recipe")


@pytest.mark.parametrize(
    ("error", "expected"),
    [(UpstreamError("gated"), 409), (HubError("down"), 502), (ConfigurationError("no such recipe"), 422), (ToolError("missing"), 500)],
)
def test_expected_errors_have_their_status(error: Exception, expected: int) -> None:
    assert status_of(error)[0] == expected


def test_every_error_has_the_one_body(client: TestClient) -> None:
    assert [code(client.get("/nowhere")), code(client.delete("/api/v1/health"))] == ["not_found", "method_not_allowed"]


def test_a_bug_is_told_without_details(client: TestClient, file_store: Store, bearer: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise RuntimeError("hf_" + "a" * 34)

    monkeypatch.setattr(file_store, "runs", fail)
    response = client.get("/api/v1/runs", headers=bearer)
    assert (response.status_code, code(response)) == (500, "internal")
    assert "hf_" not in response.text


def test_a_body_is_limited_announced_or_not(client: TestClient, file_store: Store) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(MAX_BODY // 1024 + 1):
            yield b" " * 1024

    for content in (b" " * (MAX_BODY + 1), chunks()):
        response = client.post(HOOK, content=content, headers={"X-Webhook-Secret": SECRET.encode()})
        assert (response.status_code, code(response)) == (413, "too_large")
    assert hook(client, json.dumps(CONTENT).encode().ljust(MAX_BODY)).status_code == 202
    assert len(file_store.hints()) == 1


def test_a_slow_body_is_given_up(file_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.api.guard.BODY_SECONDS", 0.05)

    async def dawdle() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(1)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(file_store, SETTINGS))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as asking:
            return await asking.post(HOOK, content=dawdle())

    response = asyncio.run(ask())
    assert (response.status_code, code(response)) == (408, "too_slow")


def test_a_webhook_leaves_a_hint_once(client: TestClient, file_store: Store) -> None:
    for _ in range(3):  # replayed
        response = hook(client, CONTENT)
        assert (response.status_code, response.json()) == (202, {"status": "accepted"})
    (hint,) = file_store.hints()
    assert (hint.repo, hint.source) == ("upstream/model", "webhook")
    assert file_store.runs() == ()  # the sha of the payload is not believed


@pytest.mark.parametrize("secret", [None, "", "wrong", SECRET + "x", SECRET[:-1]])
def test_a_webhook_without_the_secret_is_refused(client: TestClient, file_store: Store, secret: str | None) -> None:
    response = hook(client, CONTENT, secret)
    assert (response.status_code, code(response)) == (401, "unauthorized")
    assert file_store.hints() == ()


def test_wrong_secrets_of_webhooks_are_limited_and_audited_and_lock_nobody_out(client: TestClient, file_store: Store) -> None:
    answers = [hook(client, CONTENT, "wrong") for _ in range(FAILURES + 3)]
    assert [answer.status_code for answer in answers] == [401] * FAILURES + [429] * 3
    assert (code(answers[-1]), int(answers[-1].headers["Retry-After"]) > 0) == ("too_many_failures", True)
    assert hook(client, CONTENT).status_code == 202
    events = [event for event in file_store.audit_events() if event.subject.startswith("login/")]
    assert [(event.action, event.details["path"]) for event in events] == [("limited", HOOK), ("refused", HOOK)]


@pytest.mark.parametrize("configured", [None, SecretStr("")])
def test_without_a_configured_secret_no_webhook_is_taken(file_store: Store, configured: SecretStr | None) -> None:
    with TestClient(create_app(file_store, SETTINGS.with_(webhook_secret=configured))) as client:
        for secret in (None, ""):
            response = hook(client, CONTENT, secret)
            assert (response.status_code, code(response)) == (503, "webhooks_off")


@pytest.mark.parametrize("garbage", [b"", b"\xff\xfe", b"{", b"null", b"[]", b'"text"', b"[" * 100_000, b'{"a":' * 40_000])
def test_a_webhook_that_is_no_json_object_is_refused(client: TestClient, garbage: bytes) -> None:
    response = hook(client, garbage)
    assert (response.status_code, code(response)) == (400, "invalid")


@pytest.mark.parametrize(
    "changes",
    [
        {"repo": {"type": "model", "name": "stranger/model"}},
        {"repo": {"type": "dataset", "name": "upstream/model"}},
        {"repo": {"type": "model", "name": ["upstream/model"]}},
        {"repo": "upstream/model"},
        {"repo": None},
        {"event": {"action": "update", "scope": "repo.config"}},
        {"event": {"action": "create", "scope": "discussion.comment"}},
        {"event": {"action": "update", "scope": "repo.contentious"}},
        {"event": {"scope": {"repo": "content"}}},
        {"event": []},
    ],
)
def test_what_a_webhook_says_about_anything_else_is_ignored(client: TestClient, file_store: Store, changes: dict[str, object]) -> None:
    response = hook(client, {**CONTENT, **changes})
    assert (response.status_code, response.json()) == (200, {"status": "ignored"})
    assert file_store.hints() == ()


def test_unknown_parts_of_the_content_are_content(client: TestClient, file_store: Store) -> None:
    assert hook(client, {**CONTENT, "event": {"action": "new", "scope": "repo.content.future"}, "updatedRefs": "?"}).status_code == 202
    assert len(file_store.hints()) == 1


@pytest.fixture
def anywhere(store: Store) -> Iterator[TestClient]:
    """The API on each kind of database in turn, for whom may do everything."""
    headers = {"Authorization": f"Bearer {create_token(store, 'anywhere')}"}
    with TestClient(create_app(store, SETTINGS), base_url="http://testserver/api/v1", headers=headers, raise_server_exceptions=False) as opened:
        yield opened


NUMBERED = ("/runs/{}", "/runs?before={}", "/runs/{}/report", "/publications/{}", "/publications?before={}", "/watch/{}", "/audit?before={}")
BEYOND = (LARGEST + 1, 3_000_000_000, 2**63 - 1, 2**63, -1, -(2**31) - 1, -(2**63) - 1, 10**40)


def test_a_number_that_no_database_holds_is_refused(anywhere: TestClient) -> None:
    for path in (*NUMBERED, "/notifications/deliveries?before={}"):
        for number in BEYOND:
            response = anywhere.get(path.format(number))
            assert (response.status_code, code(response)) == (422, "invalid"), (path, number)
        assert anywhere.get(path.format(LARGEST)).status_code in {200, 404}, path


def test_nor_is_one_in_a_body(anywhere: TestClient, store: Store) -> None:
    def preview(run: int) -> int:
        return anywhere.post("/recipes/preview", json={"run": run, "name": "default"}).status_code

    def prioritized(priority: int) -> int:
        return anywhere.post(f"/runs/{run}/priority", json={"priority": priority}).status_code

    run = queue_run(store).id
    assert [preview(number) for number in (LARGEST, LARGEST + 1, 10**40)] == [404, 422, 422]
    assert [prioritized(number) for number in (100, 101, LARGEST + 1, -(2**63) - 1)] == [202, 422, 422, 422]


def test_every_number_in_an_address_is_bounded(client: TestClient) -> None:
    paths = client.get("/api/v1/openapi.json").json()["paths"]
    given = [item for path in paths.values() for call in path.values() for item in call.get("parameters", ())]
    numbers = [form for item in given for form in (item["schema"], *item["schema"].get("anyOf", ())) if form.get("type") == "integer"]
    assert numbers
    assert all(form["maximum"] <= LARGEST for form in numbers)


NUL = "\0"


TEXTS: tuple[tuple[str, str, Any], ...] = (
    ("GET", "/runs?repo=%00", None),
    ("GET", "/runs?recipe=a%00b", None),
    ("GET", "/audit?subject=a%00b", None),
    ("GET", "/publications?repo=a%00b", None),
    ("GET", "/releases?after=a%00b", None),
    ("GET", "/runs/1/stages/a%00b/log", None),
    ("POST", "/watch", {"repo": "upstream/model", "revision": NUL}),
    ("POST", "/watch", {"repo": "upstream/model", "recipe": NUL}),
    ("POST", "/runs", {"repo": "upstream/model", "revision": f"a{NUL}"}),
    ("POST", "/runs/1/redo", {"stages": [NUL + "a"]}),
    ("POST", "/runs/1/waivers", {"gate": "a", "variant": f"a{NUL}", "by": "Ada", "comment": "fine"}),
    ("POST", "/runs/1/approve", {"by": "Ada", "comment": f"fi{NUL}ne"}),
)


def test_a_text_that_no_database_holds_is_refused(anywhere: TestClient, store: Store) -> None:
    queue_run(store)
    for method, path, body in TEXTS:
        response = anywhere.request(method, path, json=body)
        assert response.status_code == 422, (path, body, response.text)
        assert code(response) in {"invalid", "unusable_recipe"}


def test_a_path_that_no_database_holds_is_told_to_the_trail(anywhere: TestClient) -> None:
    refused = anywhere.get("/runs/%00", headers={"Authorization": "Bearer wrong"})
    assert refused.status_code == 401
    told = anywhere.get("/audit?action=refused").json()["events"]
    assert [item["details"]["path"] for item in told] == ["/api/v1/runs/\0"]


@pytest.mark.parametrize("more", [True, False])
def test_half_a_request_is_none(client: TestClient, file_store: Store, more: bool) -> None:
    """A body that breaks off is not taken for the whole, however sound its first half looks."""
    sent: list[Any] = []
    whole = json.dumps(CONTENT).encode()
    messages = iter([{"type": "http.request", "body": whole, "more_body": more}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"x-webhook-secret", SECRET.encode()), (b"content-length", str(len(whole) + 9 * more).encode())]
    scope = {"type": "http", "method": "POST", "path": HOOK, "headers": headers, "query_string": b"", "app": client.app}
    asyncio.run(client.app(scope, receive, send))
    assert ([message["type"] for message in sent] == [], len(file_store.hints())) == (more, 0 if more else 1)
