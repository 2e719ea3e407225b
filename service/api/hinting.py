"""Hints that come by webhook: however many come at once, they are written by one transaction, and each is answered when it is kept."""

import asyncio
from dataclasses import dataclass, field

from fastapi.concurrency import run_in_threadpool

from config.settings import Settings
from service.release.watchlist import entries, following
from service.store import Store


@dataclass
class Hinting:
    """Where webhooks leave their hints. Of one event loop."""

    store: Store
    settings: Settings
    _waiting: dict[str, list[asyncio.Future[bool]]] = field(default_factory=dict)
    _writer: asyncio.Task[None] | None = None

    async def put(self, repo: str) -> bool:
        """Keep a hint that a repo changed; False, and nothing kept, when it is not watched. Raises what the database does."""
        kept: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(repo, []).append(kept)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        return await kept

    async def _write(self) -> None:
        """Write what waits until nothing does; what comes meanwhile is written together the next time."""
        while self._waiting:
            batch, self._waiting = self._waiting, {}
            try:
                watched = await run_in_threadpool(self._keep, list(batch))
            except Exception as error:  # noqa: BLE001  told to whoever waits for it
                _settle(batch, error)
            else:
                _settle(batch, watched)

    def _keep(self, repos: list[str]) -> set[str]:
        watch = entries(self.store, self.settings)
        watched = {repo for repo in repos if following(watch, repo)}
        if watched:
            self.store.put_hints(dict.fromkeys(watched, "webhook"))
        return watched


def _settle(batch: dict[str, list[asyncio.Future[bool]]], outcome: set[str] | Exception) -> None:
    for repo, waiting in batch.items():
        for kept in waiting:
            if kept.done():
                continue  # its caller has hung up
            if isinstance(outcome, Exception):
                kept.set_exception(outcome)
            else:
                kept.set_result(repo in outcome)
