"""A recipe that asks for a person's word before publishing: held with everything ready, told, and published as it was shown."""

from pathlib import Path

import pytest

from config.words import Hold, Kind, Outcome, Variant, Verdict
from publishers import target
from service.release.job import PUBLISHING
from service.runs import holds
from service.store import VariantRecord
from tests.service.conftest import RECIPE
from tests.service.release.short_way import REPO, ShortWay

ADA = holds.Decision(by="Ada", comment="I looked at the report.")


def asking(way: ShortWay, hold: str) -> None:
    """Let the recipe ask."""
    Path(way.settings.watch[0].recipe).write_text(f"{RECIPE}publish: {{hold: {hold}}}\n", encoding="utf-8")


def test_what_is_ready_is_published_when_a_person_says_so(short_way: ShortWay) -> None:
    asking(short_way, "always")
    found = short_way.released()
    assert (found["state"], found["error"], found["publications"]) == ("held", None, [])
    (hold,) = found["held"]
    assert (hold["subject"], hold["approval"], hold["patches"]) == (PUBLISHING, None, [])
    assert hold["reason"].startswith(f"Ready to be published: Q4_0 in {REPO} (files ")
    assert not target.exists(short_way.api, REPO)
    run = found["run"]
    assert short_way.carried_out(short_way.queued(again=True).id)["state"] == "held", "asking again is no decision"
    assert holds.approve(short_way.store, run, ADA).state == "queued"
    done = short_way.carried_out(run)
    assert (done["state"], [item["repo"] for item in done["publications"]]) == ("done", [REPO])
    assert [(item.subject, item.by, item.comment) for item in short_way.manifest().approvals] == [(PUBLISHING, ADA.by, ADA.comment)]
    assert short_way.carried_out(short_way.queued(again=True).id)["state"] == "done", "the same files were approved"
    assert [event.action for event in short_way.store.audit_events(subject=f"run/{run}") if event.source == "release"] == ["held"]


def test_an_approval_covers_what_was_shown_and_nothing_else(short_way: ShortWay, monkeypatch: pytest.MonkeyPatch) -> None:
    asking(short_way, "always")
    run = short_way.released()["run"]
    holds.approve(short_way.store, run, ADA)
    monkeypatch.setattr("service.release.consent.warnings", lambda work: ["Something new was found."])
    found = short_way.carried_out(run)
    (hold,) = found["held"]
    assert (found["state"], hold["approval"]) == ("held", None)
    assert hold["reason"].endswith("To look at: Something new was found.")
    assert found["publications"] == []


@pytest.mark.parametrize(("hold", "warned", "state"), [("never", True, "done"), ("on_warnings", False, "done"), ("on_warnings", True, "held")])
def test_nobody_is_asked_without_need(short_way: ShortWay, hold: str, warned: bool, state: str) -> None:
    asking(short_way, hold)
    run = short_way.queued()
    if warned:
        kept_back = Verdict(tag="Q2_K", outcome=Outcome.FAILED, reasons=("kld.mean is 0.4.",), results=())
        record = VariantRecord(variant=Variant(tag="Q2_K", kind=Kind.GGUF), file=None, bytes=None, bpw=None, measurements=(), verdict=kept_back)
        short_way.store.record_variant(run.id, record, position=0)
    found = short_way.carried_out(run.id)
    assert found["state"] == state
    if state == "held":
        assert "To look at: Q2_K is kept back: kld.mean is 0.4." in found["held"][0]["reason"]


def test_a_recipe_that_asks_no_more_lets_the_same_run_go_on(short_way: ShortWay) -> None:
    asking(short_way, "always")
    run = short_way.released()["run"]
    asking(short_way, "never")
    again = short_way.queued(again=True)
    assert again.id == run, "who is asked decides nothing of what is built"
    found = short_way.carried_out(run)
    assert (found["state"], found["held"]) == ("done", [])


def test_what_the_release_and_what_publishing_is_held_for_stand_side_by_side(short_way: ShortWay) -> None:
    asking(short_way, "always")
    run = short_way.released()["run"]
    holds.approve(short_way.store, run, ADA)
    before = [item.hold for item in short_way.store.holds(run)]
    licence = Hold(subject="licence", reason="Its licence is not stated.")
    short_way.store.record_holds(run, [*before, licence])
    holds_now = {item.hold.subject: item.approval for item in short_way.store.holds(run)}
    assert holds_now["licence"] is None
    assert holds_now[PUBLISHING] is not None
    found = short_way.carried_out(run)
    assert (found["state"], [item["subject"] for item in found["held"]]) == ("done", [PUBLISHING]), "what is not found any more is not asked"
