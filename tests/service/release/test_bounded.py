"""All that a run asks of the Hub ends in time, not its stages alone: reading its recipe, the forecast, planning, the collection."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from httpx2 import Request, Response

from bench.faulty import Fault, Proxy, always, faulty
from config.errors import StageError
from service.hubclient.allowance import allowance
from service.hubclient.retrying import Retrying
from service.release import gathering, lifecycle
from tests.service.release.short_way import REPO, ShortWay

EXPECT = lifecycle._expect  # which the short way leaves out
DATA = "upstream/texts"


@pytest.fixture
def way(short_way: ShortWay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ShortWay:
    """The short way with a forecast, and a recipe whose data this machine has not fetched yet."""
    monkeypatch.setattr(lifecycle, "_expect", EXPECT)
    author = short_way.upstream.author
    author.create_repo(DATA, repo_type="dataset")
    author.upload_file(path_or_fileobj=b"Some text.", path_in_repo="text.txt", repo_id=DATA, repo_type="dataset")
    recipe = Path(short_way.settings.watch[0].recipe)
    recipe.write_text(recipe.read_text().replace("calibration: {plain: [text.txt]}", f"calibration: {{plain: ['hub://datasets/{DATA}@main/text.txt']}}"))
    short_way.queued()
    elsewhere = short_way.settings.with_(home=tmp_path / "another machine")
    return ShortWay(upstream=replace(short_way.upstream, settings=elsewhere), store=short_way.store)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """What the Hub is asked, and whether that has an end."""
    found: list[tuple[str, bool]] = []
    handle = Retrying.handle_request

    def noted(self: Retrying, request: Request) -> Response:
        found.append((f"{request.method} {request.url.path}", allowance().until is not None))
        return handle(self, request)

    monkeypatch.setattr(Retrying, "handle_request", noted)
    return found


def test_nothing_that_a_run_asks_of_the_hub_is_without_an_end(way: ShortWay, asked: list[tuple[str, bool]]) -> None:
    assert way.carried_out(1)["state"] == "done"
    for part in ("/texts/", "/api/models/upstream/model", "/commits/", "/collections"):
        assert any(part in call for call, _ in asked), part
    assert [call for call, bounded in asked if not bounded] == []


@pytest.fixture
def slow(way: ShortWay, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ShortWay, Proxy]]:
    """The same behind a proxy, by which the Hub is never quite silent, and without a forecast, which would say that the limit is too short for all else."""
    monkeypatch.setattr(lifecycle, "_expect", lambda work, heard: None)
    with faulty(way.settings.hub_endpoint) as proxy:
        behind = way.settings.with_(hub_endpoint=proxy.url, stage_minutes=8.0 / 60, hub_patience=600)
        yield ShortWay(upstream=replace(way.upstream, settings=behind), store=way.store), proxy


@pytest.mark.parametrize(("path", "said"), [("/texts/", "reading the recipe and its data"), ("/commits/", f"planning {REPO}")])
def test_what_takes_longer_than_a_stage_may_ends_the_run_in_words(slow: tuple[ShortWay, Proxy], path: str, said: str) -> None:
    way, proxy = slow
    proxy.rule = always(Fault(answer=503, headers={"Retry-After": "1"}), path=path)
    with pytest.raises(StageError, match=rf"^{said} was stopped after 0 minutes; raise `stage_minutes`"):
        way.carried_out(1)
    assert way.store.run(1).state == "failed"


def test_a_collection_that_takes_too_long_is_made_later_and_the_run_is_done(slow: tuple[ShortWay, Proxy], monkeypatch: pytest.MonkeyPatch) -> None:
    way, proxy = slow
    way = ShortWay(upstream=replace(way.upstream, settings=way.settings.with_(stage_minutes=60)), store=way.store)
    monkeypatch.setattr(gathering, "SECONDS", 1.0)
    proxy.rule = always(Fault(answer=503, headers={"Retry-After": "1"}), path="/collections")
    assert way.carried_out(1)["state"] == "done"
    (item,) = way.store.follow_ups()
    assert "longer than 1 seconds over it" in item.error
