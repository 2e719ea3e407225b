from collections.abc import Callable
from dataclasses import replace

import pytest

from bench.faulty import Fault, always, faulty
from publishers.opening import complete
from publishers.staging import PREFIX
from service.execution.leaving import checkpoint
from service.execution.workbench import Event, Listener
from service.release import promoting, withdrawing
from service.release.withdrawing import Withdrawn, withdrawable
from service.store import Store
from tests.service.helpers import queue_run
from tests.service.release.short_way import REPO, ShortWay

ASKED = {"source": "test", "details": {}}


@pytest.fixture
def run(file_store: Store) -> int:
    number = queue_run(file_store).id
    file_store.lease("worker", seconds=60)
    return number


def test_a_run_that_nobody_withdrew_goes_on(file_store: Store, run: int) -> None:
    checkpoint(whole=True)
    with withdrawable(file_store, run):
        checkpoint()
        checkpoint(whole=True)


@pytest.mark.parametrize(("ask", "whole", "state"), [("cancel", False, "cancelled"), ("cancel", True, "cancelled"), ("pause", True, "paused")])
def test_a_withdrawn_run_is_left_at_the_next_checkpoint(file_store: Store, run: int, ask: str, whole: bool, state: str) -> None:
    wish: Callable[..., object] = getattr(file_store, ask)
    wish(run, **ASKED)
    with pytest.raises(Withdrawn) as left, withdrawable(file_store, run):
        checkpoint(whole=whole)
    assert left.value.state == state


def test_a_pause_lets_the_stage_at_hand_be_done(file_store: Store, run: int) -> None:
    file_store.pause(run, **ASKED)
    with withdrawable(file_store, run):
        checkpoint()


# ---- while it publishes ---------------------------------------------------------------------------------------------------------------------------


def asking(way: ShortWay, ask: str, state: str) -> Listener:
    """Who asks it of the first run when the step that uploads comes to that state."""

    def heard(event: Event) -> None:
        if (event.stage, event.state) == (f"upload {REPO}", state):
            getattr(way.store, ask)(1, **ASKED)

    return heard


def nothing_published(way: ShortWay) -> None:
    """Main is as the Hub made it, nobody sees the empty repo, and nothing is left beside main."""
    assert len(way.commits()) == 1
    assert way.api.repo_info(REPO).private
    assert not any(ref.name.startswith(PREFIX) for ref in way.api.list_repo_refs(REPO).branches)
    assert way.store.publications(1) == ()


def test_a_run_that_is_cancelled_while_it_uploads_publishes_nothing(each_way: ShortWay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promoting, "read_back", lambda *_: pytest.fail("it went on"))
    assert each_way.carried_out(each_way.queued().id, asking(each_way, "cancel", "started"))["state"] == "cancelled"
    nothing_published(each_way)


def test_a_run_that_is_cancelled_while_the_hub_is_away_waits_for_it_no_longer(short_way: ShortWay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(withdrawing, "LOOK_SECONDS", 0.0)
    run, remarks = short_way.queued().id, list[str]()

    def heard(event: Event) -> None:
        if event.stage == "hub":
            remarks.append(event.message)
            short_way.store.cancel(run, **ASKED)

    with faulty(short_way.settings.hub_endpoint) as proxy:
        proxy.rule = always(Fault(answer=503), path="/info/lfs/objects/batch")
        far = replace(short_way.upstream, settings=short_way.settings.with_(hub_endpoint=proxy.url, hub_patience=20.0))
        assert ShortWay(upstream=far, store=short_way.store).carried_out(run, heard)["state"] == "cancelled"
    assert len(remarks) == 1
    nothing_published(short_way)


@pytest.mark.parametrize(("ask", "state", "again"), [("cancel", "cancelled", "retry"), ("pause", "paused", "resume")])
def test_a_run_that_nobody_wants_any_more_changes_no_main(each_way: ShortWay, monkeypatch: pytest.MonkeyPatch, ask: str, state: str, again: str) -> None:
    wish: Callable[..., object] = getattr(each_way.store, ask)
    with monkeypatch.context() as patch:  # what is uploaded is whole and beside main by then
        patch.setattr(promoting, "read_back", lambda *_: wish(1, **ASKED))
        assert each_way.carried_out(each_way.queued().id)["state"] == state
    nothing_published(each_way)
    if again == "resume":
        each_way.store.resume(1, **ASKED)
    else:
        each_way.queued(again=True)
    assert each_way.carried_out(1)["state"] == "done"
    assert len(each_way.commits()) == 2
    assert not each_way.api.repo_info(REPO).private


@pytest.mark.parametrize(("ask", "asked"), [("cancel", "cancelled"), ("pause", "paused")])
def test_what_was_published_before_it_could_be_cancelled_is_told(each_way: ShortWay, monkeypatch: pytest.MonkeyPatch, ask: str, asked: str) -> None:
    wish: Callable[..., object] = getattr(each_way.store, ask)
    monkeypatch.setattr("publishers.hub.opening.complete", lambda *given, **named: (wish(1, **ASKED), complete(*given, **named)))
    done = each_way.carried_out(each_way.queued().id)
    said = f"It was published before it could be {asked}."
    assert (done["state"], done["error"], len(done["publications"])) == ("done", said, 1)
    assert len(each_way.commits()) == 2
    [ended, *_] = each_way.store.audit_events(subject="run/1")
    assert (ended.action, ended.details) == ("done", {"error": said})
