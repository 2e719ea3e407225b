"""Runs that are held and that nobody decides about: what is published since ends them, and what they made goes and is made again when one is approved."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.short_way import passed, short
from config.keep import Keep
from service.daemon import notifying
from service.disk.pruning import prune
from service.execution.workbench import Event
from service.release import overtaken
from service.release.products import Built
from service.release.work import Work
from service.runs import holds
from service.store import RunRecord
from tests.service.release.short_way import ShortWay
from tests.service.release.test_consent import ADA, asking
from tests.service.release.test_overtaken import polled
from tests.service.release.test_rollback import looked, tagged
from tests.service.stage_functions import say_so


def held(way: ShortWay) -> RunRecord:
    """The run of a new commit that a poll found, which is held."""
    way.upstream.release()
    run = polled(way)
    assert way.carried_out(run.id)["state"] == "held"
    return run


def approved(way: ShortWay, run: RunRecord) -> str:
    """How a held run ends that a person approves."""
    holds.approve(way.store, run.id, ADA)
    return str(way.carried_out(run.id)["state"])


def states(way: ShortWay, *runs: RunRecord) -> list[str]:
    return [way.store.run(run.id).state for run in runs]


def test_what_is_published_ends_what_older_commits_are_held_for(each_way: ShortWay) -> None:
    asking(each_way, "always")
    runs = [held(each_way) for _ in range(4)]
    since = [each_way.store.run(run.id).finished for run in runs]
    assert states(each_way, *runs) == ["held"] * 4, "any of them may be what a person wants"
    assert approved(each_way, runs[2]) == "done"
    assert states(each_way, *runs) == ["superseded", "superseded", "done", "held"]
    told = each_way.store.run(runs[0].id)
    assert f"Run {runs[2].id} has published what was made of {runs[2].release.sha[:12]}, which is newer than" in str(told.error)
    assert told.finished == since[0], "what it made is no younger for that"
    (event, *_) = each_way.store.audit_events(subject=f"run/{told.id}")
    notice = notifying.composed(each_way.store, event)
    assert notice is not None
    assert (event.source, event.action, notice.ending, notice.reason) == ("poll", "superseded", "superseded", told.error)
    assert approved(each_way, runs[3]) == "done"


def test_what_a_person_asked_for_and_what_a_tag_names_stay_held(short_way: ShortWay) -> None:
    asking(short_way, "always")
    asked, named, last = held(short_way), held(short_way), held(short_way)
    assert short_way.queued(asked.release.sha, again=True).trigger == "command"
    assert short_way.carried_out(asked.id)["state"] == "held"
    tagged(short_way, named.release.sha)
    looked(short_way)
    assert approved(short_way, last) == "done"
    assert states(short_way, asked, named) == ["held", "held"]


def test_a_run_that_begins_to_be_held_after_something_newer_was_published_ends(short_way: ShortWay) -> None:
    asking(short_way, "always")
    older, newer = polled(short_way), list[RunRecord]()

    def meanwhile(event: Event) -> None:
        if not newer:
            newer.append(held(short_way))
            assert approved(short_way, newer[0]) == "done"

    assert short_way.carried_out(older.id, meanwhile)["state"] == "superseded"


def test_a_fault_at_that_is_none_of_the_run(short_way: ShortWay, monkeypatch: pytest.MonkeyPatch) -> None:
    asking(short_way, "always")
    older, newer, newest = (held(short_way) for _ in range(3))
    with monkeypatch.context() as patch:
        patch.setattr(overtaken, "Line", lambda *_: {}[0])
        assert approved(short_way, newer) == "done"
    assert states(short_way, older, newer) == ["held", "done"]
    assert approved(short_way, newest) == "done"
    assert states(short_way, older) == ["superseded"], "the next run of its kind looks again"


@pytest.fixture
def kept(short_way: ShortWay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """A way whose variant is kept as a stage; how often it was built."""
    times = list[str]()

    def made(work: Work) -> list[Built]:
        text = f"Q4_0{work.release.sha}"
        output = work.job.here("build Q4_0", say_so, {"text": text}, text=text, threads=1)
        times.extend(step.state for step in work.job.store.stages(work.job.run.id) if step.name == "build Q4_0")  # done or reused
        return [passed("Q4_0", output)]

    short(monkeypatch, tmp_path / "built", made=made)
    return lambda: times.count("done")


def test_what_went_of_a_held_run_is_made_again_once_it_is_approved(short_way: ShortWay, kept: Callable[[], int]) -> None:
    asking(short_way, "always")
    runs = [held(short_way) for _ in range(3)]
    settings, folder = short_way.settings.with_(keep=Keep(runs=1)), short_way.settings.folder / "stages"
    assert (kept(), len(list(folder.iterdir()))) == (3, 3)
    gone = prune(short_way.store, settings).gone
    assert [item.why.partition("@")[0] for item in gone] == [f"run {runs[0].id} of upstream/model"]
    assert states(short_way, *runs) == ["held"] * 3
    assert approved(short_way, runs[0]) == "done"
    assert (kept(), short_way.manifest().upstream.sha) == (4, runs[0].release.sha)
    assert approved(short_way, runs[2]) == "done"
    assert kept() == 4, "what is there is found"
