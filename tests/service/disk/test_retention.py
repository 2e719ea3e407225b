"""What stays and why: decided from runs, publications and settings."""

import threading
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from config.keep import Keep
from config.words import Hold, Release
from service.disk.retention import Standing, fates, standings
from service.store import Published, Referrer, Store
from service.store.references import References
from tests.service.helpers import order, queue_run

NOW = datetime(2026, 6, 1, tzinfo=UTC)
KEEP = Keep(runs=2, days=30)


def referrer(number: int, *, days: float = 0, **changes: Any) -> Referrer:
    given = {"repo": "upstream/a", "sha": "1" * 40, "like": ("upstream/a", "default", "ours"), "state": "done", "published": ()}
    return Referrer(run=number, last=NOW - timedelta(days=days), **{**given, **changes})


def stood(*runs: Referrer) -> dict[int, tuple[Standing, str]]:
    return {run: (standing, why) for run, (standing, why, _) in standings(runs, KEEP, NOW).items()}


def test_the_newest_of_each_repo_and_recipe_stay_and_older_ones_go() -> None:
    other = {"like": ("upstream/a", "reference", "ours")}
    found = stood(*(referrer(number, days=10 - number) for number in (1, 2, 3, 4)), referrer(5, days=29, **other))
    assert {run: standing for run, (standing, _) in found.items()} == {1: 0, 2: 0, 3: 2, 4: 2, 5: 2}
    assert found[1][1] == "run 1 of upstream/a@111111111111 has 2 newer ones"
    assert found[4][1] == "run 4 of upstream/a@111111111111 is among the newest 2"


def test_age_counts_too_and_neither_concerns_what_is_published_or_not_over() -> None:
    found = stood(
        referrer(1, days=400, published=("ours/a-GGUF",)),
        referrer(2, days=31),
        *(referrer(number, days=400, state=state) for number, state in enumerate(("queued", "running", "interrupted", "held", "paused"), start=3)),
    )
    assert found[1] == (Standing.PUBLISHED, "run 1 of upstream/a@111111111111 is published in ours/a-GGUF")
    assert found[2] == (Standing.OVER, "run 2 of upstream/a@111111111111 ended 31 days ago")
    assert [found[number] for number in (3, 6)] == [
        (Standing.NEEDED, "run 3 of upstream/a@111111111111 is queued"),
        (Standing.HELD, "run 6 of upstream/a@111111111111 is held"),
    ]


def test_of_what_is_held_the_newest_is_needed_and_the_rest_stands_as_if_it_had_ended() -> None:
    found = stood(
        *(referrer(number, days=20 - number, state="held") for number in range(1, 7)),
        referrer(7, days=17.5),
        referrer(8, days=400, like=("upstream/a", "reference", "ours"), state="held"),
        referrer(9, days=1, state="held", like=("upstream/b", "default", "ours"), published=("ours/b-GGUF",)),
    )
    assert {run: standing for run, (standing, _) in found.items()} == {1: 0, 2: 0, 3: 2, 4: 2, 5: 5, 6: 5, 7: 0, 8: 5, 9: 6}
    assert found[1][1] == "run 1 of upstream/a@111111111111, which is held, has 2 newer ones"
    assert found[4][1] == "run 4 of upstream/a@111111111111, which is held, is among the newest 2"
    assert found[8][1] == "run 8 of upstream/a@111111111111 is held"


def test_failures_do_not_push_out_what_succeeded() -> None:
    states = ("done", "superseded", "failed", "cancelled", "failed", "cancelled")
    found = stood(*(referrer(number, days=9 - number, state=state) for number, state in enumerate(states, start=1)))
    assert {run: standing for run, (standing, _) in found.items()} == {1: 2, 2: 2, 3: 0, 4: 0, 5: 2, 6: 2}
    assert found[3][1].endswith("is failed, as are 2 newer ones")


# ---- the database -----------------------------------------------------------------------------------------------------------------------------


def carried_out(store: Store, repo: str, *, key: str, publish: str | None = None, state: Any = "done", **changes: object) -> int:
    run = queue_run(store, repo, **changes).id
    store.lease("worker", seconds=60, run=run)
    store.stage_finished(store.stage_started(run, "convert", key), state="done", seconds=1.0)
    if publish is not None:
        store.record_publication(run, Published(repo=publish, revision="1" * 40, url="", files=(), manifest_digest="m", changed=True))
    if state == "held":
        store.record_holds(run, [Hold(subject="licence", reason="There is none.")])
    if state is not None:
        store.finish(run, state=state)
    return run


def test_a_repo_on_the_hub_is_the_last_run_s_that_published_there(store: Store) -> None:
    older = carried_out(store, "upstream/a", key="a", publish="ours/a-GGUF")
    newer = carried_out(store, "upstream/a", key="b", publish="ours/a-GGUF", release=Release(repo="upstream/a", sha="2" * 40))
    left = carried_out(store, "upstream/b", key="c", publish="/somewhere/b", target="/somewhere")
    found = {item.run: item for item in store.referrers()}
    assert (found[older].published, found[newer].published, found[left].published) == ((), ("ours/a-GGUF",), ())
    assert found[older].like == found[newer].like
    assert found[left].state == "done"


def test_an_output_of_an_earlier_attempt_is_told_from_the_present_one(store: Store) -> None:
    run = carried_out(store, "upstream/a", key="old")
    store.stage_reused(run, "convert", "new", seconds=0, artifacts=())
    other = carried_out(store, "upstream/b", key="new")
    assert store.outputs_of_runs(["old", "new", "nobody's"]) == {"old": {run: False}, "new": {run: True, other: True}, "nobody's": {}}


@pytest.mark.parametrize(("state", "unneeded"), [("done", True), ("failed", True), ("held", True), (None, False)])
def test_what_a_run_needs_is_asked_again_just_before(store: Store, state: str | None, unneeded: bool) -> None:
    carried_out(store, "upstream/a", key="k", state=state)
    with store.unneeded("k", since=datetime.now(UTC)) as found:
        assert found is unneeded
    with store.unneeded("nobody's", since=datetime.now(UTC)) as found:
        assert found


def test_a_run_that_begins_while_one_looks_is_known(file_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stages" / "k").mkdir(parents=True)
    asked = References.outputs_of_runs

    def meanwhile(store: Store, keys: Collection[str]) -> dict[str, dict[int, bool]]:
        if not store.runs():
            carried_out(store, "upstream/a", key="k", state=None)
        return asked(store, keys)

    monkeypatch.setattr(References, "outputs_of_runs", meanwhile)
    (fate,) = fates(file_store, tmp_path, KEEP, datetime.now(UTC))
    assert (fate.standing, fate.why) == (Standing.NEEDED, "run 1 of upstream/a@0123456789ab is running")


def test_what_ended_since_one_looked_is_not_over(store: Store) -> None:
    before = datetime.now(UTC)
    carried_out(store, "upstream/a", key="k")
    with store.unneeded("k", since=before) as found:
        assert not found


def test_no_run_is_queued_again_while_its_output_is_thrown_away(store: Store) -> None:
    run = carried_out(store, "upstream/a", key="k")
    queued = threading.Event()

    def queue_again() -> None:
        store.enqueue(order("upstream/a"), again=True)
        queued.set()

    with References.unneeded(store, "k", since=datetime.now(UTC)) as found:
        assert found
        thread = threading.Thread(target=queue_again)
        thread.start()
        assert not queued.wait(0.3)
    thread.join(30)
    assert store.run(run).state == "queued"
