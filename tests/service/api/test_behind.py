"""The service behind a real reverse proxy: under a prefix, and told who the client is, which it believes of nobody else."""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route
from structlog.testing import capture_logs

from config.settings import Settings
from service.api import create_app
from service.api.attempts import FAILURES
from service.api.listening import listening
from service.api.tokens import create_token
from service.dashboard import add_dashboard
from service.store import Store
from tests.service.helpers import queue_run

PREFIX = "/sluice"
PATIENCE = 60.0  # seconds, for a machine that has other things to do
PROXY, CLIENT, OTHER = "127.0.0.2", "127.0.0.3", "127.0.0.4"  # every address of 127/8 is this machine


def proxy(target: str, *, strip: bool) -> Starlette:
    """A reverse proxy as people set one up: under a prefix, by https for its clients, at an address of its own."""

    async def hand_on(request: Request) -> StreamingResponse:
        path = request.url.path.removeprefix(PREFIX) if strip else request.url.path
        before = request.headers.get("x-forwarded-for")
        client = request.client.host if request.client else ""
        headers = {
            **{name: value for name, value in request.headers.items() if name not in {"host", "content-length", "x-forwarded-for"}},
            "X-Forwarded-For": client if before is None else f"{before}, {client}",
            "X-Forwarded-Proto": "https",
        }
        line = httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(local_address=PROXY), timeout=PATIENCE)
        asked = line.build_request(request.method, f"{target}{path}", params=request.query_params, headers=headers, content=await request.body())
        answer = await line.send(asked, stream=True)

        async def body() -> AsyncIterator[bytes]:
            async for chunk in answer.aiter_raw():
                yield chunk
            await line.aclose()

        kept = {name: value for name, value in answer.headers.items() if name not in {"content-length", "transfer-encoding", "connection"}}
        return StreamingResponse(body(), status_code=answer.status_code, headers=kept)

    return Starlette(routes=[Route(f"{PREFIX}/{{path:path}}", hand_on, methods=["GET", "POST"])])


@dataclass(frozen=True, kw_only=True)
class Place:
    """A service, and the proxy in front of it."""

    store: Store
    direct: str
    public: str

    def logins(self) -> set[str]:
        """Addresses that wrong tokens came from, as the audit trail has them."""
        return {event.subject.removeprefix("login/") for event in self.store.audit_events() if event.subject.startswith("login/")}


@pytest.fixture(params=[True, False], ids=["stripped", "kept"])
def place(request: pytest.FixtureRequest, file_store: Store, tmp_path: Path) -> Iterator[Place]:
    settings = Settings(home=tmp_path / "home", hub_endpoint="http://127.0.0.1:1", namespace="ours", proxy_prefix=PREFIX, trusted_proxies=("127.0.0.2/32",))
    app = create_app(file_store, settings)
    add_dashboard(app, file_store, settings)
    queue_run(file_store)
    with (
        capture_logs(),
        listening(app, "127.0.0.1", 0, per_client=64) as direct,
        listening(proxy(direct, strip=request.param), "127.0.0.1", 0, per_client=64) as public,
    ):
        yield Place(store=file_store, direct=direct, public=f"{public}{PREFIX}")


@contextmanager
def at(address: str) -> Iterator[httpx.Client]:
    """A client at that address."""
    with httpx.Client(transport=httpx.HTTPTransport(local_address=address), timeout=PATIENCE) as client:
        yield client


WRONG = {"Authorization": "Bearer sluice_wrong"}


def test_the_client_is_who_the_trusted_proxy_says(place: Place) -> None:
    with at(CLIENT) as client, at(OTHER) as other:
        for _ in range(FAILURES):
            assert client.get(f"{place.public}/api/v1/runs", headers=WRONG).status_code == 401
        assert client.get(f"{place.public}/api/v1/runs", headers=WRONG).status_code == 429
        assert other.get(f"{place.public}/api/v1/runs", headers=WRONG).status_code == 401, "others come by the same proxy, and are not limited with it"
    assert place.logins() == {CLIENT, OTHER}


@pytest.mark.parametrize("written", ["10.9.8.7", "10.9.8.7, 10.9.8.6", "127.0.0.2", "'; DROP TABLE audit", "x" * 3000, "::1"])
def test_what_a_client_writes_itself_is_not_believed(place: Place, written: str) -> None:
    with at(CLIENT) as client:
        told = {**WRONG, "X-Forwarded-For": written, "X-Forwarded-Proto": "https"}
        assert client.get(f"{place.public}/api/v1/runs", headers=told).status_code == 401
        assert client.get(f"{place.direct}/api/v1/runs", headers=told).status_code == 401
    assert place.logins() == {CLIENT}


def test_what_is_no_address_stands_in_no_trail(place: Place) -> None:
    with at(PROXY) as broken:
        assert broken.get(f"{place.direct}/api/v1/runs", headers={**WRONG, "X-Forwarded-For": "unknown"}).status_code == 401
    assert place.logins() == {PROXY}


def test_links_redirects_and_cookies_stay_under_the_prefix(place: Place) -> None:
    token = create_token(place.store, "desk")
    with at(CLIENT) as client:
        answer = client.get(f"{place.public}/")
        assert (answer.status_code, answer.headers["Location"]) == (307, f"{PREFIX}/ui/")
        answer = client.get(f"{place.public}/ui/runs/1")
        assert answer.headers["Location"] == f"{PREFIX}/ui/sign-in?next=/runs/1"
        answer = client.post(f"{place.public}/ui/sign-in", data={"token": token, "next": "/runs/1"})
        assert (answer.status_code, answer.headers["Location"]) == (303, f"{PREFIX}/ui/runs/1")
        cookie = answer.headers["Set-Cookie"]
        assert "Path=/sluice/;" in cookie
        assert "Secure" in cookie, "the proxy's client came by https"
        secret = cookie.partition(";")[0]
        for page in ("/ui/", "/ui/runs", "/ui/runs/1", "/ui/releases", "/ui/audit", "/ui/sign-in"):
            shown = client.get(f"{place.public}{page}", headers={"Cookie": secret})
            assert shown.status_code == 200, page
            assert "script-src 'self'" in shown.headers["Content-Security-Policy"]
            links = set(re.findall(r'(?:href|src|action|data-live|data-log)="(/[^"]*)"', shown.text))
            assert links
            assert all(link.startswith(f"{PREFIX}/ui/") for link in links), links
            for link in links:
                if "/static/" in link:
                    assert client.get(f"{place.public}{link.removeprefix(PREFIX)}").status_code == 200
    plain = httpx.post(f"{place.direct}/ui/sign-in", data={"token": token}, timeout=PATIENCE)
    assert "Secure" not in plain.headers["Set-Cookie"]


def test_the_api_tells_where_it_is(place: Place) -> None:
    described = httpx.get(f"{place.public}/api/v1/openapi.json", timeout=PATIENCE).json()
    assert described["servers"] == [{"url": PREFIX}]
    assert "/api/v1/runs" in described["paths"]
    bearer = {"Authorization": f"Bearer {create_token(place.store, 'ci')}"}
    answer = httpx.post(f"{place.public}/api/v1/runs/1/pause", headers=bearer, timeout=PATIENCE)
    assert (answer.status_code, answer.headers["Location"]) == (202, f"{PREFIX}/api/v1/runs/1")
    assert httpx.get(f"{place.direct}/api/v1/health", timeout=PATIENCE).status_code == 200, "a supervisor beside it needs no prefix"
    assert httpx.get(f"{place.public}/api/v1/docs", timeout=PATIENCE).status_code == 200


def test_streams_come_through(place: Place) -> None:
    bearer = {"Authorization": f"Bearer {create_token(place.store, 'ci')}"}
    with httpx.stream("GET", f"{place.public}/api/v1/runs/1/events", headers=bearer, timeout=PATIENCE) as answer:
        first = next(answer.iter_lines())
    assert first == "event: run"


@pytest.mark.parametrize(
    "settings", [{"trusted_proxies": ("*",)}, {"trusted_proxies": ("proxy.local",)}, {"proxy_prefix": "sluice"}, {"proxy_prefix": "/sluice/"}]
)
def test_settings_that_would_trust_anybody_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings(**settings)
