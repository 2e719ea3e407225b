from dataclasses import replace

from service.store import PullRequestRecord, Store
from tests.service.helpers import queue_run

REQUEST = PullRequestRecord(repo="upstream/model", number=3, url="http://hub/upstream/model/discussions/3", state="opened", files=("config.json",))


def test_a_pull_request_belongs_to_its_run_and_is_told_once(store: Store) -> None:
    run, other = queue_run(store).id, queue_run(store, namespace="elsewhere").id
    assert store.pull_request(run) is None
    store.record_pull_request(run, REQUEST, source="command")
    assert store.pull_request(run) == REQUEST
    assert store.pull_request(other) is None
    (event, *_) = store.audit_events(subject=f"run/{run}")
    assert (event.source, event.action, event.details["url"]) == ("command", "pull request", REQUEST.url)


def test_how_it_stands_replaces_what_was_known(store: Store) -> None:
    run = queue_run(store).id
    store.record_pull_request(run, REQUEST, source="command")
    merged = replace(REQUEST, state="merged")
    store.record_pull_request(run, merged, source="command")
    assert store.pull_request(run) == merged
    assert [event.action for event in store.audit_events(subject=f"run/{run}")] == ["pull request", "queued"]


def test_what_a_run_was_asked_for_stays_while_it_is_at_work(store: Store) -> None:
    assert not queue_run(store).fixes_as_pr
    assert queue_run(store, fixes_as_pr=True).fixes_as_pr
    assert queue_run(store).fixes_as_pr
    run = store.lease("worker", seconds=60)
    assert run is not None
    assert run.fixes_as_pr
    store.finish(run.id, state="done")
    assert not queue_run(store, again=True).fixes_as_pr
