"""An embedded Hub behind a proxy with faults, and the service's client of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, set_client_factory
from huggingface_hub.utils._http import default_client_factory
from pydantic import SecretStr

from bench.faulty import Proxy, faulty
from config.settings import Settings
from hub.server import running
from hub.tokens import create_token
from service.hubclient import connect


@dataclass(frozen=True, kw_only=True)
class Far:
    """A Hub that is reached through the proxy."""

    proxy: Proxy
    token: str
    root: Path

    def connect(self, **settings: Any) -> HfApi:
        """The service's client."""
        return connect(Settings(hub_endpoint=self.proxy.url, hub_token=SecretStr(self.token), **settings))


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Far]:
    root = tmp_path / "hub"
    root.mkdir()
    token = create_token(root, user="acme")
    with running(root) as url:
        near = HfApi(endpoint=url, token=token)
        near.create_repo("acme/model")
        near.upload_file(path_or_fileobj=bytes(range(256)) * 4000, path_in_repo="model.safetensors", repo_id="acme/model")
        with faulty(url) as proxy:
            yield Far(proxy=proxy, token=token, root=root)
    set_client_factory(default_client_factory)
