from collections.abc import Mapping
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from config.recipe import Gate
from config.words import Kind, Measurement, Sample, Variant, Verdict
from qa.gates import judge
from service.cli.verdicts import show_gates
from service.runs.gates import Decision, gates_of, waive, withdraw
from service.store import Store, UnknownRun, VariantRecord, WaiverRefused
from tests.service.helpers import queue_run

VARIANT = Variant(tag="IQ1_S", kind=Kind.GGUF)
GATES = (
    Gate(name="divergence", measure="kld.mean", at_most=0.15),
    Gate(name="knowledge", measure="mmlu.accuracy", at_least=0.5),
    Gate(name="file", measure="file.failures", at_most=0),
)
MEASURED = {
    "kld.mean": Measurement(name="kld.mean", value=0.43, unit="nats", stderr=0.02, n=1000),
    "file.failures": Measurement(name="file.failures", value=0, unit="count"),
}
DIVERGENCE = Decision(gate="divergence", tag="IQ1_S", by="Ada", comment="Its users asked for it.")


def judged(store: Store, run: int, *, without: str | None = None) -> None:
    """Judge the variant as a run does, by the waivers on record."""
    measured = {name: item for name, item in MEASURED.items() if name != without}
    verdict = judge(VARIANT, GATES, measured, {}, [item.waiver for item in store.waivers(run)])
    kept(store, run, measured, verdict)


def kept(store: Store, run: int, measured: Mapping[str, Measurement], verdict: Verdict) -> None:
    """Record the variant as a run does."""
    record = VariantRecord(variant=VARIANT, file=None, bytes=1, bpw=2.0, measurements=tuple(measured.values()), verdict=verdict)
    store.record_variant(run, record, position=0)


@pytest.fixture
def run(file_store: Store) -> int:
    number = queue_run(file_store).id
    judged(file_store, number)
    return number


def test_every_gate_is_told_with_its_figures(file_store: Store, run: int) -> None:
    (variant,) = gates_of(file_store, run).variants
    assert (variant.tag, variant.verdict) == ("IQ1_S", "error")
    divergence, knowledge, file = variant.gates
    assert (divergence.value, divergence.stderr, divergence.unit, divergence.limit, divergence.condition) == (0.43, 0.02, "nats", 0.15, "at most 0.15")
    assert (divergence.outcome, divergence.waiver) == ("failed", None)
    assert divergence.reason in variant.reasons
    assert (knowledge.outcome, knowledge.value, knowledge.limit) == ("error", None, 0.5)
    assert (file.outcome, file.value) == ("passed", 0)


def test_extended_samples_are_told_with_their_size(file_store: Store) -> None:
    number = queue_run(file_store).id
    verdict = judge(VARIANT, GATES[::2], MEASURED, {}, samples=[Sample(basis={"kld": "text"}, look=3, looks=3)])
    kept(file_store, number, MEASURED, verdict)
    found = gates_of(file_store, number)
    divergence, file = found.variants[0].gates
    assert (divergence.look, divergence.looks, divergence.n, file.look, file.n) == (3, 3, 1000, 1, None)
    console = Console(file=StringIO(), width=160)
    show_gates(console, found)
    assert console.file.getvalue().count("look 3 of 3, n = 1,000") == 1


def test_waived_gates_no_longer_block_but_keep_their_outcome(file_store: Store, run: int) -> None:
    waive(file_store, run, DIVERGENCE, unmeasured=False)
    assert [gate.waiver.state for gate in gates_of(file_store, run).variants[0].gates if gate.waiver] == ["pending"]
    judged(file_store, run)
    (variant,) = gates_of(file_store, run).variants
    assert variant.verdict == "error", "the other gate still blocks"
    waive(file_store, run, replace(DIVERGENCE, gate="knowledge"), unmeasured=True)
    judged(file_store, run)
    (variant,) = gates_of(file_store, run).variants
    assert (variant.verdict, variant.reasons) == ("passed", [])
    assert [(gate.outcome, gate.waiver and gate.waiver.state) for gate in variant.gates] == [("failed", "applied"), ("error", "applied"), ("passed", None)]
    assert [item.gate for item in file_store.variants(run)[0].verdict.waivers] == ["divergence", "knowledge"]


def test_a_withdrawn_waiver_counts_until_the_run_is_judged_again(file_store: Store, run: int) -> None:
    waive(file_store, run, DIVERGENCE, unmeasured=False)
    judged(file_store, run)
    withdraw(file_store, run, replace(DIVERGENCE, by="Bob", comment="A mistake."))
    assert gates_of(file_store, run).variants[0].gates[0].waiver.state == "withdrawn"
    judged(file_store, run)
    assert gates_of(file_store, run).variants[0].gates[0].waiver is None


def test_a_waived_figure_is_not_a_waived_absence(file_store: Store, run: int) -> None:
    waive(file_store, run, DIVERGENCE, unmeasured=False)
    judged(file_store, run, without="kld.mean")
    divergence = gates_of(file_store, run).variants[0].gates[0]
    assert (divergence.outcome, divergence.waiver.state) == ("error", "pending")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"gate": "file"}, "passed, so there is nothing to waive"),
        ({"gate": "nonesuch"}, "Applied were: divergence, knowledge, file"),
        ({"tag": "Q4_K_M"}, "Judged are: IQ1_S"),
        ({"gate": "knowledge"}, "--unmeasured"),
        ({"comment": " \n"}, "needs a name and a comment"),
        ({"by": ""}, "needs a name and a comment"),
    ],
)
def test_what_cannot_be_waived_is_explained(file_store: Store, run: int, changed: dict[str, str], words: str) -> None:
    with pytest.raises(WaiverRefused, match=words):
        waive(file_store, run, replace(DIVERGENCE, **changed), unmeasured=False)
    assert file_store.waivers(run) == ()


def test_an_unknown_run_has_no_gates(file_store: Store) -> None:
    for act in (lambda: gates_of(file_store, 7), lambda: waive(file_store, 7, DIVERGENCE, unmeasured=False)):
        with pytest.raises(UnknownRun):
            act()
