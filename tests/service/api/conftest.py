"""The API on an empty store, and tokens for it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from config.settings import Settings
from service.api import create_app
from service.api.tokens import create_token
from service.store import Scope, Store
from service.store.access import Grant

Headers = dict[str, str]


@pytest.fixture
def api(file_store: Store, tmp_path: Path) -> Iterator[TestClient]:
    settings = Settings(home=tmp_path / "home", hub_endpoint="http://127.0.0.1:1", namespace="ours")
    with TestClient(create_app(file_store, settings), base_url="http://testserver/api/v1", raise_server_exceptions=False) as opened:
        yield opened


@pytest.fixture
def token_for(file_store: Store) -> Callable[..., Headers]:
    """Headers of a new token with these scopes, for these namespaces."""

    def make(*scopes: Scope, namespaces: tuple[str, ...] | None = None) -> Headers:
        token = create_token(file_store, f"token-{len(file_store.tokens())}", Grant(scopes=scopes, namespaces=namespaces))
        return {"Authorization": f"Bearer {token}"}

    return make
