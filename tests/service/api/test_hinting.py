"""Webhooks that come at once."""

import asyncio
from collections.abc import Mapping

import pytest

from config.settings import Settings, Watched
from service.api.hinting import Hinting
from service.store import Store

SETTINGS = Settings(watch=(Watched(owners=("a",)),))


def test_what_comes_at_once_is_written_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[list[str]] = []
    put = store.put_hints
    monkeypatch.setattr(store, "put_hints", lambda sources: (written.append(sorted(sources)), put(sources)))

    async def deliver() -> list[bool]:
        hinting = Hinting(store, SETTINGS)
        names = ["a/x", "a/y", "b/z"] * 100
        return await asyncio.gather(*(hinting.put(name) for name in names))

    assert asyncio.run(deliver()) == [True, True, False] * 100
    assert written == [["a/x", "a/y"]]
    assert [(hint.repo, hint.source) for hint in store.hints()] == [("a/x", "webhook"), ("a/y", "webhook")]


def test_what_cannot_be_written_is_told_to_everybody_and_the_next_is_written(file_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put = file_store.put_hints

    def fail(_sources: Mapping[str, str]) -> None:
        monkeypatch.setattr(file_store, "put_hints", put)
        raise OSError("disk full")

    async def deliver() -> list[object]:
        hinting = Hinting(file_store, SETTINGS)
        monkeypatch.setattr(file_store, "put_hints", fail)
        first = await asyncio.gather(*(hinting.put("a/x") for _ in range(2)), return_exceptions=True)
        return [*first, await hinting.put("a/x")]

    first, second, third = asyncio.run(deliver())
    assert (str(first), str(second), third) == ("disk full", "disk full", True)
