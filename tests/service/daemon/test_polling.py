"""Polls of a real Hub: how many calls they take, and which repos they find."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from huggingface_hub import HfApi, set_client_factory
from huggingface_hub.utils._http import default_client_factory

from bench.faulty import Fault, Proxy, always, faulty
from config.settings import Settings, Watched
from hub.routes import repos as routes
from service.api import create_health_app
from service.daemon import listing, polling
from service.daemon.hints import take_hints
from service.daemon.listing import Listings
from service.daemon.polling import poll
from service.hubclient import connect
from service.pulse import pulse
from service.runs import steering
from service.runs.steering import Actor
from service.store import LookKey, Published, RunRecord, Store, open_store, order_of
from tests.service.conftest import Upstream
from tests.service.helpers import queue_run


@pytest.fixture
def listings(upstream: Upstream) -> Listings:
    return Listings(HfApi(endpoint=upstream.settings.hub_endpoint, token=upstream.settings.token))


def watching(upstream: Upstream, **entry: object) -> Settings:
    """The settings with one entry in the place of the list."""
    return upstream.settings.with_(watch=(Watched.model_validate({"recipe": upstream.settings.watch[0].recipe, **entry}),))


def hinted(store: Store) -> list[str]:
    return sorted(hint.repo for hint in store.hints())


def test_an_owner_takes_one_call_however_many_repos_he_has(file_store: Store, upstream: Upstream, listings: Listings) -> None:
    for name in ("one", "two", "Three"):
        upstream.author.create_repo(f"upstream/{name}")
    told = poll(file_store, watching(upstream, owners=["Upstream"], exclude=["tw*"]), listings)
    assert (told.owners, told.repos, told.calls, told.hints) == (1, 4, 1, 3)
    assert hinted(file_store) == ["upstream/Three", "upstream/model", "upstream/one"]
    several = watching(upstream, repos=["upstream/one", "upstream/two", "upstream/model"])
    assert poll(file_store, several, listings).calls == 1
    assert poll(file_store, watching(upstream, repo="upstream/model"), listings).calls == 1


def test_pages_are_followed(file_store: Store, upstream: Upstream, listings: Listings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "PAGE", 2)
    for name in "abcd":
        upstream.author.create_repo(f"upstream/{name}")
    settings = watching(upstream, owners=["upstream"])
    assert [(told.repos, told.calls) for told in (poll(file_store, settings, listings) for _ in range(2))] == [(5, 3), (5, 3)]
    upstream.author.create_repo("upstream/e")
    assert poll(file_store, settings, listings).repos == 6


def test_what_is_remembered_of_an_owner_does_not_grow_with_the_years(upstream: Upstream, listings: Listings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "PAGE", 2)
    for number in range(8):
        upstream.author.create_repo(f"upstream/repo-{number}")
        assert len(listings.of_owner("upstream")) == number + 2
        assert len(listings._known) <= len(listings.of_owner("Upstream")) // 2 + 2
    monkeypatch.setattr(listing, "KEPT", 3)
    for number in range(8):
        listings.of_repo(f"upstream/repo-{number}")
    assert len(listings._known) == 3


def test_what_did_not_change_is_answered_in_a_word(upstream: Upstream, listings: Listings, monkeypatch: pytest.MonkeyPatch) -> None:
    answered: list[int] = []
    session = httpx.Client()
    monkeypatch.setattr("service.daemon.listing.get_session", lambda: session)
    session.event_hooks["response"] = [lambda response: answered.append(response.status_code)]
    first = listings.of_owner("upstream")
    assert listings.of_owner("upstream") == first
    upstream.release()
    assert listings.of_owner("upstream") != first
    assert answered == [200, 304, 200]
    session.close()


def test_a_repo_is_looked_at_when_it_changed_and_once(file_store: Store, upstream: Upstream, listings: Listings) -> None:
    settings = watching(upstream, owners=["upstream"])
    counts = []
    for _ in range(2):
        counts.append(poll(file_store, settings, listings).hints)
        take_hints(file_store, settings, listings)
        counts.append(poll(file_store, settings, Listings(listings.api)).hints)  # as after a restart
        upstream.release()
    assert counts == [1, 0, 1, 0]
    assert [run.trigger for run in file_store.runs()] == ["poll", "poll"]


@pytest.mark.parametrize("namespace", [None, "Ours"])
def test_a_repo_is_looked_at_again_when_the_recipe_changed_or_its_run_failed(
    file_store: Store, upstream: Upstream, listings: Listings, namespace: str | None
) -> None:
    settings = watching(upstream, owners=["upstream"]).with_(namespace=namespace)
    poll(file_store, settings, listings)
    take_hints(file_store, settings, listings)
    run = file_store.lease("worker", seconds=60)
    assert run is not None
    assert poll(file_store, settings, listings).hints == 0
    file_store.finish(run.id, state="failed", error="the machine was switched off")
    assert poll(file_store, settings, listings).hints == 1
    take_hints(file_store, settings, listings)
    assert (file_store.run(run.id).state, file_store.run(run.id).attempt) == ("queued", 2)
    recipe = upstream.settings.folder.parent / "small.yaml"
    recipe.write_text(recipe.read_text().replace("Q4_0", "Q8_0"))
    assert poll(file_store, settings, listings).hints == 1


@pytest.mark.parametrize("other", ["recipe", "namespace", "folder"])
def test_a_run_that_no_look_would_try_again_makes_no_looks(store: Store, upstream: Upstream, listings: Listings, tmp_path: Path, other: str) -> None:
    settings = watching(upstream, owners=["upstream"]).with_(namespace="ours")
    poll(store, settings, listings)
    take_hints(store, settings, listings)
    run = store.lease("worker", seconds=60)
    assert run is not None
    different = {"recipe": {"recipe_digest": "f" * 64}, "namespace": {"namespace": "upstream"}, "folder": {"target": str(tmp_path / "out")}}[other]
    failed = store.enqueue(replace(order_of(run, trigger="api"), **different))[0]
    assert failed.id != run.id
    store.lease("worker", seconds=60, run=failed.id)
    store.finish(failed.id, state="failed", error="its recipe was faulty")
    store.finish(run.id, state="done")
    assert poll(store, settings, listings).hints == 0


def test_once_a_faulty_recipe_is_corrected_what_it_failed_at_is_looked_at_no_more(store: Store, upstream: Upstream, listings: Listings) -> None:
    settings = watching(upstream, owners=["upstream"])
    recipe = upstream.settings.folder.parent / "small.yaml"
    hints = list[int]()
    for state, gguf in (("failed", "Q8_0"), ("done", "Q4_0")):
        recipe.write_text(recipe.read_text().replace("Q4_0", gguf) if state == "failed" else recipe.read_text().replace("Q8_0", gguf))
        hints.append(poll(store, settings, listings).hints)
        take_hints(store, settings, listings)
        run = store.lease("worker", seconds=60)
        assert run is not None
        store.finish(run.id, state=state)
    assert [run.state for run in store.runs()] == ["done", "failed"]
    assert (hints, poll(store, settings, listings).hints) == ([1, 1], 0)


def test_what_nobody_asks_for_any_more_is_forgotten(file_store: Store, upstream: Upstream, listings: Listings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = watching(upstream, owners=["upstream"])
    poll(file_store, settings, listings)
    take_hints(file_store, settings, listings)
    (known,) = file_store.looks()
    file_store.record_look(LookKey(repo="upstream/model", revision="main", asked="0" * 64), "1" * 40)
    poll(file_store, settings, listings)
    assert len(file_store.looks()) == 2
    monkeypatch.setattr(polling, "FORGOTTEN", timedelta())
    poll(file_store, settings.with_(watch=(*settings.watch, Watched(repo="a/b", recipe="nonesuch"))), listings)
    assert len(file_store.looks()) == 2
    poll(file_store, settings, listings)
    assert list(file_store.looks()) == [known]


def test_what_we_published_ourselves_is_no_upstream(file_store: Store, upstream: Upstream, listings: Listings) -> None:
    run = queue_run(file_store)
    file_store.record_publication(run.id, Published(repo="upstream/Model", revision="1" * 40, url="u", files=(), manifest_digest="m", changed=True))
    assert poll(file_store, watching(upstream, owners=["upstream"]), listings).hints == 0
    assert poll(file_store, watching(upstream, repo="upstream/model"), listings).hints == 1


def test_another_branch_is_asked_for(file_store: Store, upstream: Upstream, listings: Listings) -> None:
    upstream.author.create_branch("upstream/model", branch="stable")
    settings = watching(upstream, owners=["upstream"], revision="stable")
    told = [poll(file_store, settings, listings)]
    take_hints(file_store, settings, listings)
    upstream.release()
    told.append(poll(file_store, settings, listings))
    assert [(item.calls, item.hints) for item in told] == [(2, 1), (2, 0)]


def test_what_cools_down_is_left_alone_by_polls_and_webhooks(file_store: Store, upstream: Upstream, listings: Listings) -> None:
    settings = watching(upstream, owners=["upstream"], cool_down_minutes=60)
    assert poll(file_store, settings, listings).hints == 0
    file_store.put_hints({"upstream/model": "webhook"})
    take_hints(file_store, settings, listings)
    (hint,) = file_store.hints()
    assert "`cool_down_minutes`" in (hint.error or "")
    assert 3500 < (hint.due - hint.created).total_seconds() <= 3601
    assert file_store.runs() == ()


def test_what_cools_down_for_longer_than_a_day_is_looked_at_on_the_way(file_store: Store, upstream: Upstream, listings: Listings) -> None:
    settings = watching(upstream, owners=["upstream"], cool_down_minutes=10 * 24 * 60)
    file_store.put_hints({"upstream/model": "webhook"})
    take_hints(file_store, settings, listings)
    (hint,) = file_store.hints()
    assert 86_000 < (hint.due - hint.created).total_seconds() <= 86_401
    assert file_store.hints(due=True) == ()


def test_an_owner_that_cannot_be_listed_is_told_and_does_not_stop_the_others(file_store: Store, upstream: Upstream, listings: Listings) -> None:
    settings = watching(upstream, repos=["nobody/there"], owners=["upstream"])
    assert poll(file_store, settings, listings).hints == 1
    failed, listed = file_store.listings()
    assert (failed.owner, listed.owner, listed.repos, listed.error) == ("nobody", "upstream", 1, None)
    assert "nobody/there" in (failed.error or "")


def test_a_named_repo_that_is_not_there_is_told(file_store: Store, upstream: Upstream, listings: Listings) -> None:
    settings = watching(upstream, repos=["upstream/model", "upstream/gone"])
    assert poll(file_store, settings, listings).hints == 2
    take_hints(file_store, settings, listings)
    assert [(hint.repo, "does not exist" in (hint.error or "")) for hint in file_store.hints()] == [("upstream/gone", True)]


def test_a_repo_that_moved_is_followed_under_its_old_name(upstream: Upstream, listings: Listings, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Listings._asked
    found = asked(listings, f"{listings.api.endpoint}/api/models/upstream/model?expand=sha", "upstream/model")
    monkeypatch.setattr(Listings, "_asked", lambda *_: found)
    assert listings.of_repo("upstream/older").repo == "upstream/older"


def test_an_entry_with_a_broken_recipe_does_not_stop_the_others(file_store: Store, upstream: Upstream, listings: Listings) -> None:
    broken = Watched(owners=("upstream",), recipe="nonesuch")
    settings = watching(upstream, owners=["upstream"])
    assert poll(file_store, settings.with_(watch=(broken, *settings.watch)), listings).hints == 1
    take_hints(file_store, settings.with_(watch=(broken, *settings.watch)), listings)
    assert len(file_store.runs()) == 1
    assert "nonesuch" in (file_store.hints()[0].error or "")


def test_a_new_readme_is_no_new_release(file_store: Store, upstream: Upstream, listings: Listings) -> None:
    settings = watching(upstream, owners=["upstream"])

    def looked() -> int:
        poll(file_store, settings, listings)
        take_hints(file_store, settings, listings)
        return len(file_store.runs())

    assert looked() == 1
    upstream.author.upload_file(path_or_fileobj=b"---\nlicense: mit\n---\n# Better words\n", path_in_repo="README.md", repo_id="upstream/model")
    upstream.author.upload_file(path_or_fileobj=b"a picture", path_in_repo="logo.svg", repo_id="upstream/model")
    assert looked() == 1
    assert poll(file_store, settings, listings).hints == 0
    upstream.author.upload_file(path_or_fileobj=b"{{ messages }}", path_in_repo="chat_template.jinja", repo_id="upstream/model")
    assert looked() == 2
    file_store.lease("worker", seconds=60)
    run = file_store.runs()[0]
    file_store.lease("worker", seconds=60)
    file_store.finish(run.id, state="failed", error="e")
    upstream.author.upload_file(path_or_fileobj=b"---\nlicense: mit\n---\n# Other words\n", path_in_repo="README.md", repo_id="upstream/model")
    assert looked() == 3


def test_a_rebuild_is_carried_out_though_nothing_changed(file_store: Store, upstream: Upstream, listings: Listings) -> None:
    settings = watching(upstream, owners=["upstream"], cool_down_minutes=60)
    for attempt in (1, 2):
        file_store.put_hints({"upstream/model": "rebuild"}, rebuild=True)
        take_hints(file_store, settings, listings)
        (run,) = file_store.runs()
        assert (run.state, run.trigger, run.attempt) == ("queued", "rebuild", attempt)
        file_store.lease("worker", seconds=60)
        file_store.finish(run.id, state="done")
    assert file_store.hints() == ()


@pytest.mark.parametrize("put_aside", [steering.cancel, steering.pause])
def test_what_a_person_did_not_want_is_queued_by_a_rebuild_and_by_no_poll(
    file_store: Store, upstream: Upstream, listings: Listings, put_aside: Callable[..., RunRecord]
) -> None:
    settings, states = watching(upstream, owners=["upstream"]), list[str]()
    for rebuild in (False, False, True):
        file_store.put_hints({"upstream/model": "rebuild" if rebuild else "poll"}, rebuild=rebuild)
        take_hints(file_store, settings, listings)
        (run,) = file_store.runs()
        states.append(run.state)
        unwanted = put_aside(file_store, run.id, Actor()).state if run.state == "queued" else run.state
    assert states == ["queued", unwanted, "queued"]


def test_what_cannot_be_released_is_looked_at_less_and_less_until_it_changes(file_store: Store, upstream: Upstream, listings: Listings) -> None:
    settings = watching(upstream, owners=["upstream"])
    upstream.author.delete_file("config.json", repo_id="upstream/model")
    assert poll(file_store, settings, listings).hints == 1
    for looks in range(1, 4):
        take_hints(file_store, settings, listings)
        (refused,) = file_store.hints()
        assert refused.attempts == looks
        assert "has no config.json" in (refused.error or "")
        assert poll(file_store, settings, listings).hints == 0
        assert file_store.hints() == (refused,), "no poll has it looked at any sooner"
        file_store.hasten()
    upstream.release()
    assert poll(file_store, settings, listings).hints == 1
    take_hints(file_store, settings, listings)
    assert (len(file_store.runs()), file_store.hints()) == (1, ())


def test_polls_leave_a_hub_alone_for_as_long_as_it_asks(file_store: Store, upstream: Upstream, listings: Listings) -> None:
    with faulty(upstream.settings.hub_endpoint) as proxy:
        settings = watching(upstream, owners=["upstream"]).with_(hub_endpoint=proxy.url)
        behind = Listings(connect(settings))
        proxy.rule = lambda request: Fault(answer=429, headers={"Retry-After": "1800"}) if "/revision/" in request.path else None
        assert poll(file_store, settings, behind).hints == 1
        take_hints(file_store, settings, behind)
        (waits,) = file_store.hints()
        assert (waits.due - waits.created).total_seconds() > 1700
        upstream.release()
        assert poll(file_store, settings, behind).hints == 0
        assert file_store.hints() == (waits,)
        proxy.rule = lambda request: None
        file_store.hasten()
        take_hints(file_store, settings, behind)
    assert (len(file_store.runs()), file_store.hints()) == (1, ())


def test_services_that_look_at_once_do_not_get_into_one_another_s_way(store: Store, database_url: str) -> None:
    stores = [store, *(open_store(database_url) for _ in range(3))]
    key, start = LookKey(repo="upstream/model", revision="main", asked="0" * 64), threading.Barrier(len(stores))

    def work(each: Store) -> None:
        for number in range(10):
            start.wait()
            each.record_look(key, f"{number:040}")
            each.record_listings({f"owner-{number}": number, "always": number})

    with ThreadPoolExecutor(len(stores)) as pool:
        list(pool.map(work, stores))
    assert [look.sha for look in store.looks().values()] == [f"{9:040}"]
    assert [(item.owner, item.repos) for item in store.listings()] == [("always", 9), ("owner-9", 9)]
    store.record_listings({"always": "The Hub is down."})
    assert [(item.owner, item.repos, item.error) for item in store.listings()] == [("always", 9, "The Hub is down.")]
    for each in stores[1:]:
        each.close()


@pytest.fixture
def slow(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Settings, Listings, Proxy]]:
    """A list of many owners, none of whom the Hub says anything of."""
    monkeypatch.setattr(polling, "PATIENCE", 0.0)
    with faulty(upstream.settings.hub_endpoint) as proxy:
        proxy.rule = always(Fault(stall=True))
        settings = watching(upstream, owners=[f"owner-{number}" for number in range(24)]).with_(hub_endpoint=proxy.url, hub_timeout=0.5)
        yield settings, Listings(connect(settings)), proxy
    set_client_factory(default_client_factory)


def test_a_hub_that_stalls_for_every_owner_does_not_make_the_poll_look_stuck(file_store: Store, slow: tuple[Settings, Listings, Proxy]) -> None:
    settings, listings, _ = slow
    client, answered, began = TestClient(create_health_app(file_store, settings)), set[int](), time.monotonic()
    with pulse.part("poll", limit=2.0), ThreadPoolExecutor(1) as pool:
        told = pool.submit(poll, file_store, settings, listings)
        while not told.done():
            answered.add(client.get("/api/v1/live").status_code)
            time.sleep(0.05)
    assert (told.result().owners, told.result().repos) == (24, 0)
    assert time.monotonic() - began > 2.0, "or nothing is shown by this"
    assert answered == {200}


def test_a_poll_ends_although_the_hub_is_slow_and_tells_whose_turn_did_not_come(
    file_store: Store, slow: tuple[Settings, Listings, Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, listings, proxy = slow
    monkeypatch.setattr(polling, "LONGEST", 0.7)
    poll(file_store, settings.with_(poll_minutes=0.01), listings)
    assert proxy.count("GET", "author=owner-") <= 12
    said = [listing.error or "" for listing in file_store.listings()]
    assert len(said) == 24
    assert sum("The poll took longer than" in error for error in said) >= 12
