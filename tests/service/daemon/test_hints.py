from pathlib import Path
from typing import Any, Literal

import pytest

from config.errors import ConfigurationError, HubError, UpstreamError
from config.settings import Settings, Watched
from service.daemon import hints
from service.daemon.hints import ATTEMPTS, take_hints
from service.daemon.listing import Listings
from service.hubclient import connect
from service.release.intake import ReleaseRequest, queue_release
from service.store import Store
from tests.service.conftest import Upstream


def hinted(store: Store, settings: Settings, repo: str = "upstream/model", source: str = "poll") -> None:
    """Give a hint and have it looked at."""
    store.put_hints({repo: source})
    take_hints(store, settings, Listings(connect(settings)))


def test_a_hint_queues_the_commit_that_the_hub_names(file_store: Store, upstream: Upstream) -> None:
    sha = upstream.release()
    hinted(file_store, upstream.settings, source="webhook")
    (run,) = file_store.runs()
    assert (run.release.repo, run.release.sha) == ("upstream/model", sha)
    assert (run.state, run.trigger, run.namespace, run.private) == ("queued", "webhook", "ours", False)
    assert run.recipe.endswith("small.yaml")
    assert file_store.hints() == ()


def test_a_commit_is_queued_once_and_the_next_one_too(file_store: Store, upstream: Upstream) -> None:
    for source in ("poll", "webhook", "poll"):
        hinted(file_store, upstream.settings, source=source)
    assert len(file_store.runs()) == 1
    upstream.release()
    hinted(file_store, upstream.settings)
    assert len(file_store.runs()) == 2


def test_only_the_watched_branch_counts(file_store: Store, upstream: Upstream) -> None:
    upstream.author.create_branch("upstream/model", branch="stable")
    settings = upstream.settings.with_(watch=(upstream.settings.watch[0].model_copy(update={"revision": "stable"}),))
    hinted(file_store, settings)
    upstream.release()
    hinted(file_store, settings)
    assert len(file_store.runs()) == 1


def test_a_repo_may_be_watched_with_two_recipes(file_store: Store, upstream: Upstream, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text((tmp_path / "small.yaml").read_text().replace("Q4_0", "Q8_0"))
    hinted(file_store, upstream.settings.with_(watch=(*upstream.settings.watch, Watched(repo="upstream/model", recipe=str(other)))))
    assert sorted(Path(run.recipe).name for run in file_store.runs()) == ["other.yaml", "small.yaml"]


def test_fixes_are_offered_where_the_settings_say_so(file_store: Store, upstream: Upstream) -> None:
    own = upstream.settings.with_(fixes_as_pr="own")
    hinted(file_store, own)
    assert not file_store.runs()[0].fixes_as_pr
    upstream.release()
    hinted(file_store, own.with_(namespace="upstream"))
    assert file_store.runs()[0].fixes_as_pr
    upstream.release()
    hinted(file_store, own.with_(fixes_as_pr="always"))
    assert file_store.runs()[0].fixes_as_pr


def test_what_is_private_upstream_is_published_privately(file_store: Store, upstream: Upstream) -> None:
    upstream.release("upstream/hidden", private=True)
    hinted(file_store, upstream.settings.with_(watch=(Watched(repo="upstream/hidden", recipe=upstream.settings.watch[0].recipe),)), "upstream/hidden")
    assert file_store.runs()[0].private
    hinted(file_store, upstream.settings.with_(private=True))
    assert file_store.runs()[0].private


def test_a_hub_that_is_down_is_asked_again_later(file_store: Store, upstream: Upstream) -> None:
    hinted(file_store, upstream.settings.with_(hub_endpoint="http://127.0.0.1:1"))
    (hint,) = file_store.hints()
    assert hint.attempts == 1
    assert "cannot be reached" in hint.error
    assert 0 < (hint.due - hint.created).total_seconds() <= hints.FIRST_DELAY + 5
    assert [event.action for event in file_store.audit_events(subject="repo/upstream/model")] == ["deferred"]
    take_hints(file_store, upstream.settings, Listings(connect(upstream.settings)))
    assert file_store.runs() == ()  # not yet
    hinted(file_store, upstream.settings)
    assert len(file_store.runs()) == 1
    assert file_store.hints() == ()


def test_the_waits_grow_up_to_a_limit(file_store: Store, upstream: Upstream) -> None:
    settings = upstream.settings.with_(watch=(Watched(repo="upstream/nowhere", recipe=upstream.settings.watch[0].recipe),))
    waits = []
    for _ in range(10):
        hinted(file_store, settings, "upstream/nowhere")
        (hint,) = file_store.hints()
        waits.append((hint.due - hint.created).total_seconds())
    for looks, seconds in enumerate(waits):
        most = min(hints.FIRST_DELAY * 2**looks, hints.LONGEST_REFUSAL)
        assert most / 2 <= seconds <= most + 30


def test_one_repo_in_trouble_does_not_hold_up_the_others(file_store: Store, upstream: Upstream) -> None:
    recipe = upstream.settings.watch[0].recipe
    settings = upstream.settings.with_(
        watch=(Watched(repo="upstream/nowhere", recipe=recipe), Watched(repo="upstream/badly-cooked", recipe="/no/recipe.yaml"), *upstream.settings.watch)
    )
    for repo in ("upstream/nowhere", "upstream/badly-cooked", "upstream/model"):
        file_store.put_hints({repo: "poll"})
    take_hints(file_store, settings, Listings(connect(settings)))
    assert len(file_store.runs()) == 1
    errors = {hint.repo: hint.error for hint in file_store.hints()}
    assert "does not exist" in errors["upstream/nowhere"]
    assert "/no/recipe.yaml does not exist" in errors["upstream/badly-cooked"]


def test_even_a_bug_defers_only_its_hint(file_store: Store, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr(hints, "queue_release", fail)
    hinted(file_store, upstream.settings)
    assert file_store.hints()[0].error == "KeyError: 'surprise'"


def test_a_hint_about_a_repo_that_is_no_longer_watched_is_dropped(file_store: Store, upstream: Upstream) -> None:
    hinted(file_store, upstream.settings.with_(watch=()))
    assert (file_store.hints(), file_store.runs()) == ((), ())


def test_hints_give_up_on_a_run_that_keeps_failing(file_store: Store, upstream: Upstream) -> None:
    for _ in range(ATTEMPTS + 2):
        hinted(file_store, upstream.settings)
        if run := file_store.lease("worker", seconds=60):
            file_store.finish(run.id, state="failed", error="no disk")
    (run,) = file_store.runs()
    assert (run.state, run.attempt) == ("failed", ATTEMPTS)


def test_a_request_that_cannot_be_met_is_explained(file_store: Store, upstream: Upstream) -> None:
    settings = upstream.settings
    wanted = {"repo": "upstream/model", "revision": "main", "recipe": settings.watch[0].recipe, "trigger": "api"}
    for changes, error in (
        ({"repo": "upstream/nowhere"}, UpstreamError),
        ({"revision": "nowhere"}, UpstreamError),
        ({"recipe": "nosuch"}, ConfigurationError),
    ):
        with pytest.raises(error):
            queue_release(file_store, settings, connect(settings), ReleaseRequest(**{**wanted, **changes}))
    for wrong in (settings.with_(hub_token=None), settings.with_(hub_endpoint="http://127.0.0.1:1")):
        with pytest.raises(HubError):
            queue_release(file_store, wrong, connect(wrong), ReleaseRequest(**wanted))
    assert file_store.runs() == ()


def test_each_look_is_a_sign_of_life(file_store: Store, upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signs = list[tuple[str, str]]()
    monkeypatch.setattr(hints.pulse, "beat", lambda part, doing="", **_: signs.append((part, doing)))
    others = [tmp_path / f"{number}.yaml" for number in range(2)]
    for number, other in enumerate(others):
        other.write_text((tmp_path / "small.yaml").read_text().replace("Q4_0", f"Q{4 + number}_K_M"))
    watch = (*upstream.settings.watch, *(Watched(repo="upstream/model", recipe=str(other)) for other in others))
    hinted(file_store, upstream.settings.with_(watch=watch))
    assert len(file_store.runs()) == 3
    assert signs.count(("intake", "look")) == 3, "each may take nearly as long as a part may be silent"


def asked_to_rebuild(store: Store, settings: Settings) -> tuple[str, ...]:
    """What is said of the hint that a request to rebuild leaves, once it was looked at; nothing when it is settled."""
    store.put_hints({"upstream/model": "rebuild"}, rebuild=True)
    return looked_again(store, settings)


def looked_again(store: Store, settings: Settings) -> tuple[str, ...]:
    """The same of hints whose time has come."""
    store.hasten()
    take_hints(store, settings, Listings(connect(settings)))
    return tuple(str(hint.error) for hint in store.hints())


def ended(store: Store, state: Literal["done", "failed"]) -> int:
    """The number of the run that a worker took, and that ended so."""
    run = store.lease("worker", seconds=60)
    assert run is not None
    store.finish(run.id, state=state)
    return run.id


@pytest.mark.parametrize("end", ["done", "failed", "cancelled"])
def test_what_was_rebuilt_is_left_alone_while_another_entry_cannot_be(store: Store, upstream: Upstream, tmp_path: Path, end: str) -> None:
    other = tmp_path / "other.yaml"
    settings = upstream.settings.with_(watch=(*upstream.settings.watch, Watched(repo="upstream/model", recipe=str(other))))
    (said,) = asked_to_rebuild(store, settings)
    assert "other.yaml does not exist" in said
    (run,) = store.runs()
    if end == "cancelled":
        store.cancel(run.id, source="command", details={})
    else:
        for _ in range(ATTEMPTS if end == "failed" else 1):
            ended(store, end)  # type: ignore[arg-type]
            looked_again(store, settings)
    before = store.run(run.id)
    assert before.state == end
    store.put_hints({"upstream/model": "webhook"})
    assert looked_again(store, settings) == (said,)
    assert store.run(run.id) == before

    other.write_text((tmp_path / "small.yaml").read_text().replace("Q4_0", "Q8_0"))
    assert looked_again(store, settings) == ()
    assert [(item.state, item.trigger) for item in store.runs() if item.id != run.id] == [("queued", "rebuild")]
    assert store.run(run.id) == before
    assert asked_to_rebuild(store, settings) == ()
    assert (store.run(run.id).state, store.run(run.id).attempt) == ("queued", before.attempt + 1)


def test_another_request_to_rebuild_counts_although_an_entry_still_waits(store: Store, upstream: Upstream) -> None:
    settings = upstream.settings.with_(watch=(*upstream.settings.watch, Watched(repo="upstream/model", recipe="/no/recipe.yaml")))
    for attempt in (1, 2):
        asked_to_rebuild(store, settings)
        (run,) = store.runs()
        assert (run.state, run.attempt) == ("queued", attempt)
        ended(store, "done")


def test_a_rebuild_of_a_run_that_is_at_work_comes_when_that_has_ended(store: Store, upstream: Upstream) -> None:
    hinted(store, upstream.settings)
    run = store.lease("worker", seconds=60)
    assert run is not None
    (said,) = asked_to_rebuild(store, upstream.settings)
    assert said == "upstream/model is released again when run 1, which is at work, has ended."
    assert 50 < (store.hints()[0].due - store.hints()[0].created).total_seconds() <= hints.RUN_SECONDS + 5
    assert looked_again(store, upstream.settings) == (said,)
    store.finish(run.id, state="done")
    assert looked_again(store, upstream.settings) == ()
    again = store.run(run.id)
    assert (again.state, again.trigger, again.attempt) == ("queued", "rebuild", 2)


def test_entries_that_ask_for_the_same_are_rebuilt_once(store: Store, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a worker takes the run that the first of them queued before the second is looked at."""

    def look(*given: Any, **options: Any) -> object:
        found = queue_release(*given, **options)
        store.lease("worker", seconds=60)
        return found

    monkeypatch.setattr(hints, "queue_release", look)
    everything = Watched(owners=("upstream",), recipe=upstream.settings.watch[0].recipe)
    settings = upstream.settings.with_(watch=(*upstream.settings.watch, everything))
    assert asked_to_rebuild(store, settings) == ()
    (run,) = store.runs()
    assert (run.state, run.attempt) == ("running", 1)


def test_a_rebuild_of_a_run_whose_worker_is_gone_comes_when_another_one_has_ended_it(store: Store, upstream: Upstream) -> None:
    hinted(store, upstream.settings)
    assert store.lease("worker", seconds=0) is not None
    (said,) = asked_to_rebuild(store, upstream.settings)
    assert said == "upstream/model is released again when run 1, which is at work, has ended."


def test_word_of_a_repo_that_comes_while_it_is_rebuilt_has_it_rebuilt_no_second_time(store: Store, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(*given: Any, **options: Any) -> object:
        found = queue_release(*given, **options)
        if store.lease("worker", seconds=60):
            store.put_hints({"upstream/model": "webhook"})
        return found

    monkeypatch.setattr(hints, "queue_release", look)
    assert asked_to_rebuild(store, upstream.settings) == ()
    (run,) = store.runs()
    assert (run.state, run.trigger, run.attempt) == ("running", "rebuild", 1)


def test_what_is_said_while_one_looks_comes_before_what_polls_found(store: Store, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abcd":
        upstream.release(f"upstream/{name}")
    settings, everything = upstream.settings.with_(watch=()), Watched(owners=("upstream",), recipe=upstream.settings.watch[0].recipe)
    entry, looked = store.add_watch(everything, by="ada").id, list[str]()

    def slow(*given: Any, **options: Any) -> object:
        looked.append(given[3].repo)
        if len(looked) == 1:
            store.put_hints({"upstream/d": "webhook"})
            store.put_hints({"upstream/d": "poll"})
            store.put_hints({"upstream/model": "rebuild"}, rebuild=True)
            store.change_watch(entry, everything.model_copy(update={"exclude": ("b",)}), by="ada")
        return queue_release(*given, **options)

    monkeypatch.setattr(hints, "queue_release", slow)
    store.put_hints(dict.fromkeys(("upstream/a", "upstream/b", "upstream/c"), "poll"))
    take_hints(store, settings, Listings(connect(settings)))
    assert looked == ["upstream/a", "upstream/model", "upstream/d", "upstream/c"], "b is excluded since"
    assert [run.trigger for run in reversed(store.runs())] == ["poll", "rebuild", "webhook", "poll"]
    assert store.hints() == ()
