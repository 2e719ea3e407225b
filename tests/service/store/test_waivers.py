import pytest

from config.words import Outcome, Waiver
from service.store import Store, WaiverRefused
from tests.service.helpers import queue_run

WAIVER = Waiver(tag="IQ1_S", gate="divergence", by="Ada", comment="Asked for by its users.", outcome=Outcome.FAILED)


def test_a_waiver_comes_back_as_it_was_given_and_belongs_to_its_run(store: Store) -> None:
    run, other = queue_run(store).id, queue_run(store, namespace="elsewhere").id
    given = store.waive(run, WAIVER, source="command")
    assert store.waivers(run) == (given,)
    assert (given.run, given.waiver) == (run, WAIVER)
    assert given.at.tzinfo is not None
    assert store.waivers(other) == ()
    (event, *_) = store.audit_events(subject=f"run/{run}")
    assert (event.source, event.action) == ("command", "waived")
    assert event.details == {"gate": "divergence", "variant": "IQ1_S", "outcome": "failed", "by": "Ada", "comment": "Asked for by its users."}


def test_a_second_waiver_of_the_same_gate_is_refused_and_leaves_no_trace(store: Store) -> None:
    run = queue_run(store).id
    store.waive(run, WAIVER, source="command")
    with pytest.raises(WaiverRefused, match="waived already"):
        store.waive(run, Waiver(tag="IQ1_S", gate="divergence", by="Bob", comment="Me too.", outcome=Outcome.ERROR), source="command")
    assert [item.waiver.by for item in store.waivers(run)] == ["Ada"]
    assert [event.action for event in store.audit_events(subject=f"run/{run}")] == ["waived", "queued"]


def test_a_waiver_is_withdrawn_and_the_audit_trail_keeps_both(store: Store) -> None:
    run = queue_run(store).id
    store.waive(run, WAIVER, source="command")
    store.withdraw_waiver(run, "divergence", "IQ1_S", source="command", details={"by": "Bob", "comment": "A mistake."})
    assert store.waivers(run) == ()
    assert [event.action for event in store.audit_events(subject=f"run/{run}")][:2] == ["waiver withdrawn", "waived"]
    with pytest.raises(WaiverRefused, match="is not waived"):
        store.withdraw_waiver(run, "divergence", "IQ1_S", source="command", details={"by": "Bob", "comment": "Again."})
