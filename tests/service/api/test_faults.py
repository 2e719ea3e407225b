"""A database that is busy, cut off or gone, and a Hub that is: every endpoint answers as OpenAPI tells, in a sentence, and none with a fault of its own."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import sqlalchemy
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy import event, text
from sqlalchemy.pool import QueuePool

from config.settings import Settings
from service.api import create_app, outward
from service.api.tokens import create_token
from service.dashboard import add_dashboard
from service.store import Store, database, open_store
from tests.service.conftest import RECIPE
from tests.service.helpers import STAGE, judged_run

Away = Callable[[], None]
"""Takes the database away."""
IDS = {"id": "1", "stage": STAGE, "name": "default", "sha256": "a" * 64}


# ---- a database that does not answer -----------------------------------------------------------------------------------------------------------


@contextmanager
def locked(store: Store, path: Path) -> Iterator[Away]:
    with ExitStack() as held:

        def lock() -> None:
            other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            held.callback(other.close)
            other.execute("BEGIN IMMEDIATE")

        yield lock


@contextmanager
def taken_away(store: Store, path: Path) -> Iterator[Away]:
    def move() -> None:
        store.close()
        path.parent.rename(path.parent.with_name("away"))

    yield move


@contextmanager
def emptied(store: Store, path: Path) -> Iterator[Away]:
    def empty() -> None:
        store.close()
        for file in path.parent.glob(f"{path.name}*"):
            file.unlink()

    yield empty


@contextmanager
def exhausted(store: Store, path: Path) -> Iterator[Away]:
    pool = cast("QueuePool", store._engine.pool)
    with ExitStack() as held:

        def exhaust() -> None:
            pool._timeout = 0.05
            while pool.checkedout() < pool.size() + pool._max_overflow:
                held.callback(pool.connect().close)

        yield exhaust


@contextmanager
def refused(store: Store, server: sqlalchemy.Engine) -> Iterator[Away]:
    name = store._engine.url.database

    def refuse() -> None:
        with server.connect() as connection:
            connection.execute(text(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false"))
            connection.execute(text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"), {"name": name})

    yield refuse


@contextmanager
def cut(store: Store, server: sqlalchemy.Engine) -> Iterator[Away]:
    """Each connection is cut when something is asked on it."""

    def end(connection: Any, cursor: Any, *_: object) -> None:
        with server.connect() as other:
            other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": cursor.connection.info.backend_pid})

    yield lambda: event.listen(store._engine, "before_cursor_execute", end)
    event.remove(store._engine, "before_cursor_execute", end)


FAULTS: dict[str, Any] = {"locked": locked, "taken away": taken_away, "emptied": emptied, "exhausted": exhausted, "refused": refused, "cut": cut}


@pytest.fixture(params=FAULTS)
def served(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Store, Away, str]]:
    """A store with a run, what takes its database away, and how."""
    monkeypatch.setattr(database, "BUSY_TIMEOUT", 50)
    if request.param in {"refused", "cut"}:
        store, where = open_store(request.getfixturevalue("postgres_url")), request.getfixturevalue("postgres_server")
    else:
        where = tmp_path / "data" / "sluice.db"
        store = open_store(f"sqlite:///{where}")
    judged_run(store)
    with FAULTS[request.param](store, where) as away:
        yield store, away, request.param
    store.close()


def opened(store: Store, tmp_path: Path, **changes: Any) -> TestClient:
    settings = Settings(home=tmp_path / "home", hub_endpoint="http://127.0.0.1:1", namespace="ours", rebuild_secret=SecretStr("of rebuilds"), **changes)
    app = create_app(store, settings)
    add_dashboard(app, store, settings)
    app.state.ending = lambda: True
    return TestClient(app, raise_server_exceptions=False)


def operations(api: TestClient) -> list[tuple[str, str, dict[str, Any]]]:
    described = api.get("/api/v1/openapi.json").json()["paths"]
    return [(method.upper(), path, operation) for path, found in described.items() for method, operation in found.items()]


def ask(api: TestClient, method: str, path: str, operation: dict[str, Any], bearer: dict[str, str]) -> Any:
    """The answer to a request as OpenAPI has it as an example."""
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
    return api.request(method, path.format(**IDS), headers=bearer, json=body)


def test_a_database_that_does_not_answer_is_told_by_every_endpoint_as_described(served: tuple[Store, Away, str], tmp_path: Path) -> None:
    store, away, how = served
    bearer, api = {"Authorization": f"Bearer {create_token(store, 'ci')}"}, opened(store, tmp_path)
    wanted = operations(api)
    away()
    for method, path, operation in wanted:
        answer = ask(api, method, path, operation, bearer)
        assert str(answer.status_code) in operation["responses"], (method, path, answer.text)
        if "401" in operation["responses"] and not path.startswith("/webhooks"):
            assert (answer.status_code, answer.headers["Content-Type"]) == (503, "application/problem+json"), (method, path, answer.text)
            assert (answer.json()["code"], answer.headers["Retry-After"].isdigit()) == ("database_away", True)
            assert "database does not answer at present" in answer.json()["detail"]
            assert "503" in operation["responses"]
    health = api.get("/api/v1/health")
    if how == "locked":  # to what changes it, while health is read
        assert (health.status_code, health.json()["database"]) == (200, True)
    else:
        assert (health.status_code, health.json()["status"], health.json()["database"], health.json()["queue"]) == (503, "failing", False, None)
    assert api.get("/api/v1/live").status_code == 200


def test_pages_tell_of_a_database_that_does_not_answer(served: tuple[Store, Away, str], tmp_path: Path) -> None:
    store, away, _ = served
    token, api = create_token(store, "person"), opened(store, tmp_path)
    away()
    answer = api.post("/ui/sign-in", data={"token": token})
    assert (answer.status_code, answer.headers["Retry-After"].isdigit()) == (503, True)
    assert "database does not answer at present" in answer.text


def test_what_is_no_fault_of_the_database_is_none_that_passes(file_store: Store) -> None:
    with pytest.raises(sqlalchemy.exc.OperationalError) as wrong, file_store.read() as session:
        session.execute(text("SELECT nothing FROM runs"))
    assert not database.is_away(wrong.value)


# ---- a Hub that does not ----------------------------------------------------------------------------------------------------------------------

ASKING = {
    "/api/v1/runs",
    "/api/v1/runs/{id}/rollback",
    "/api/v1/publications/{id}/republish",
    "/api/v1/publications/{id}/rollback",
    "/api/v1/publications/{id}/unpublish",
}


@pytest.mark.parametrize(("fault", "expected"), [("away", (502, "hub_failed")), ("busy", (503, "busy"))])
def test_a_hub_that_does_not_answer_is_told_as_described(file_store: Store, tmp_path: Path, fault: str, expected: tuple[int, str]) -> None:
    recipe = tmp_path / "own.yaml"
    recipe.write_text(RECIPE.replace("plain: [text.txt]", 'plain: ["hub://datasets/somebody/texts@main/text.txt"]'), encoding="utf-8")
    judged_run(file_store, recipe=str(recipe))
    bearer, api = {"Authorization": f"Bearer {create_token(file_store, 'ci')}"}, opened(file_store, tmp_path)
    told = {}
    with ExitStack() as held:
        if fault == "busy":
            for _ in range(outward.AT_ONCE):
                held.enter_context(outward.asking_the_hub())
        for method, path, operation in operations(api):
            if method == "POST" and path in ASKING:
                answer = ask(api, method, path, operation, bearer)
                told[path] = answer.status_code, answer.json()["code"]
                assert {"502", "503"} <= operation["responses"].keys(), path
                assert fault == "away" or answer.headers["Retry-After"].isdigit()
    assert told == dict.fromkeys(ASKING, expected)


def test_without_a_hub_every_endpoint_answers_as_described(file_store: Store, tmp_path: Path) -> None:
    judged_run(file_store)
    bearer, api = {"Authorization": f"Bearer {create_token(file_store, 'ci')}"}, opened(file_store, tmp_path)
    for method, path, operation in operations(api):
        answer = ask(api, method, path, operation, bearer)
        assert str(answer.status_code) in operation["responses"], (method, path, answer.text)
        assert answer.status_code < 500 or answer.json()["code"] in {"hub_failed", "webhooks_off"}, (method, path, answer.text)
