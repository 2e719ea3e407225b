"""Commits that come faster than builds: the newest that waits is built next, what leads up to it is left, and what a person asked for is not."""

from dataclasses import replace

import pytest

from config.errors import HubUnavailable
from config.words import Hold
from service.daemon.hints import take_hints
from service.daemon.listing import Listings
from service.execution.workbench import Event
from service.release import lifecycle
from service.runs import steering
from service.runs.steering import Actor
from service.store import RunRecord, open_store
from tests.service.release.short_way import REPO, ShortWay
from tests.service.release.test_rollback import looked, tagged, worked


def polled(way: ShortWay, *, rebuild: bool = False) -> RunRecord:
    """The run of what the upstream's main branch names now, which a poll found, or of which a request asked for a rebuild."""
    way.store.put_hints({"upstream/model": "poll"}, rebuild=rebuild)
    take_hints(way.store, way.settings, Listings(way.api))
    sha = way.upstream.author.model_info("upstream/model").sha
    return next(run for run in way.store.runs() if run.release.sha == sha)


def taken(way: ShortWay) -> list[tuple[int, str]]:
    """Carry out what waits in the order of the queue; each run with how it ended."""
    ends = list[tuple[int, str]]()
    while waiting := way.store.waiting():
        ends.append((waiting[0].id, way.carried_out(waiting[0].id)["state"]))
    return ends


def test_of_commits_that_came_during_a_build_the_newest_is_built_next(each_way: ShortWay) -> None:
    first, came = polled(each_way), list[int]()

    def meanwhile(event: Event) -> None:
        if event.stage == f"publish {REPO}" and event.state == "started":
            for _ in range(3):
                each_way.upstream.release()
                came.append(polled(each_way).id)

    assert each_way.carried_out(first.id, meanwhile)["state"] == "done", "what is begun is done, or nothing ever would be"
    assert taken(each_way) == [(came[0], "superseded"), (came[1], "superseded"), (came[2], "done")]
    newest = each_way.store.run(came[2]).release.sha
    assert f"Run {came[2]} of {newest[:12]}, which is newer than" in str(each_way.store.run(came[0]).error)
    assert each_way.manifest().upstream.sha == newest
    assert each_way.store.stages(came[0]) == ()


def test_what_waited_for_the_hub_ends_before_it_builds_once_something_newer_is_published(short_way: ShortWay, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise HubUnavailable("The Hub is down.")

    older = polled(short_way)
    with monkeypatch.context() as patch:
        patch.setattr(lifecycle, "_gone", away)
        with pytest.raises(HubUnavailable):
            short_way.carried_out(older.id)
    short_way.upstream.release()
    newer = polled(short_way)
    assert short_way.carried_out(newer.id)["state"] == "done"
    assert short_way.carried_out(older.id)["state"] == "superseded"
    told = short_way.store.run(older.id)
    assert f"Run {newer.id} has published what was made of {newer.release.sha[:12]}" in str(told.error)
    assert short_way.store.stages(older.id) == ()


def test_what_is_begun_is_not_given_up_for_something_that_waits(short_way: ShortWay) -> None:
    begun = polled(short_way)
    leased = short_way.store.lease("stopped", seconds=60)
    assert leased is not None
    short_way.store.stage_started(begun.id, "snapshot", "k" * 64)
    short_way.upstream.release()
    newer = polled(short_way)
    assert short_way.store.release(begun.id, "stopped")
    assert taken(short_way) == [(begun.id, "done"), (newer.id, "done")]


@pytest.mark.parametrize("wish", ["rebuild", "command", "prioritize", "retry", "approve"])
def test_what_a_person_asked_for_is_built_whatever_waits(short_way: ShortWay, wish: str) -> None:
    older, store = polled(short_way), short_way.store
    if wish == "rebuild":
        polled(short_way, rebuild=True)
        polled(short_way)
    if wish == "approve":
        assert store.lease("worker", seconds=60) is not None
        store.record_holds(older.id, [hold := Hold(subject="licence", reason="There is none.")])
        store.finish(older.id, state="held")
    short_way.upstream.release()
    newer = polled(short_way)
    if wish == "command":
        short_way.queued(older.release.sha)
    if wish == "prioritize":
        steering.prioritize(store, older.id, 1, Actor())
    if wish == "approve":
        store.approve(older.id, [hold], by="Ada", comment="Fine.", source="command")
    if wish == "retry":
        assert short_way.carried_out(older.id)["state"] == "superseded"
        steering.retry(store, older.id, Actor())
    assert min(run.id for run in store.waiting()) == older.id
    assert short_way.carried_out(older.id)["state"] == "done"
    assert taken(short_way) == [(newer.id, "done")]


def test_what_another_branch_names_is_no_older_commit_of_this_one(short_way: ShortWay) -> None:
    first = short_way.upstream.author.model_info("upstream/model").sha
    assert first is not None
    tagged(short_way, first)
    looked(short_way)
    short_way.upstream.release()
    newer = polled(short_way)
    assert worked(short_way) == ["done", "done"]
    assert short_way.manifest().upstream.sha == newer.release.sha


def test_a_service_elsewhere_that_published_something_newer_is_heeded_too(each_way: ShortWay, database_url: str) -> None:
    older = polled(each_way)
    each_way.upstream.release()
    other = open_store(database_url)
    newer = polled(replace(each_way, store=other))
    assert each_way.carried_out(newer.id, store=other)["state"] == "done"
    other.close()
    assert taken(each_way) == [(older.id, "superseded")]
    assert each_way.store.stages(older.id) == (), "nothing was done of it"


def test_what_waits_for_the_hub_takes_no_older_one_s_place(short_way: ShortWay) -> None:
    older = polled(short_way)
    short_way.upstream.release()
    newer = polled(short_way)
    leased = short_way.store.lease("worker", seconds=60, run=newer.id)
    assert leased is not None
    short_way.store.defer(newer.id, leased.lease, error="The Hub is down.", seconds=3600)
    assert short_way.carried_out(older.id)["state"] == "done"
