"""A Hub: the stores of one root folder, opened together by the one process that serves it."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hub.collections import Collections
from hub.delivery import Dispatcher
from hub.disk import Root
from hub.errors import RootError
from hub.objects import Objects
from hub.repos import Repos
from hub.tokens import Tokens
from hub.webhooks import Webhooks


@dataclass(frozen=True, kw_only=True)
class Hub:
    """Everything that the routes work on."""

    root: Root
    objects: Objects
    repos: Repos
    tokens: Tokens
    webhooks: Webhooks
    collections: Collections
    dispatcher: Dispatcher
    secret: bytes  # signs the addresses that LFS uploads go to


@contextmanager
def opened(path: Path) -> Iterator[Hub]:
    """Open the root at `path`, made if missing; sweep what a kill left behind; deliver webhooks until closed.

    Raises RootError when another process has it open, or when the folder is not empty and not a Hub's.
    """
    root = Root(path)
    if path.exists() and any(path.iterdir()) and not (path / "tmp").is_dir():
        raise RootError(f"{path} is neither empty nor the root of a Hub. Name another folder.")
    root.prepare()
    with root.locked("server.lock"):
        root.sweep()
        objects, webhooks = Objects(root), Webhooks(root)
        repos = Repos(root, objects)
        repos.load()
        objects.collect(repos.held())
        dispatcher = Dispatcher(repos, webhooks)
        hub = Hub(
            root=root,
            objects=objects,
            repos=repos,
            tokens=Tokens(path),
            webhooks=webhooks,
            collections=Collections(root),
            dispatcher=dispatcher,
            secret=_secret(root),
        )
        dispatcher.start()
        try:
            yield hub
        finally:
            dispatcher.stop()


def _secret(root: Root) -> bytes:
    path = root.path / "secret"
    if not path.exists():
        root.write(path, secrets.token_bytes(32), mode=0o600)
    return path.read_bytes()
