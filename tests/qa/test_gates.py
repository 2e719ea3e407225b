import math

import pytest

from config.recipe import Gate
from config.words import Kind, Measurement, Outcome, Variant
from qa.gates import judge

GGUF = Variant(tag="Q4_K_M", kind=Kind.GGUF)
KLD = Gate(name="divergence", measure="kld.mean", at_most=0.1)
ACCURACY = Gate(name="knowledge", measure="mmlu.accuracy", at_least=0.9)
TEMPLATE = Gate(name="template", measure="template.failures", at_most=0, scope="release")


def kld(value: float, stderr: float | None = None) -> dict[str, Measurement]:
    return {"kld.mean": Measurement(name="kld.mean", value=value, unit="nats", stderr=stderr, n=1000)}


def accuracy(value: float, stderr: float | None = None) -> dict[str, Measurement]:
    return {"mmlu.accuracy": Measurement(name="mmlu.accuracy", value=value, unit="share", stderr=stderr, n=100)}


@pytest.mark.parametrize(("value", "stderr"), [(0.1, None), (0.1, 0.0), (0.05, 0.03), (0.0, None)])
def test_passes_when_the_whole_interval_is_below_the_limit(value: float, stderr: float | None) -> None:
    verdict = judge(GGUF, [KLD], kld(value, stderr), {})
    assert (verdict.tag, verdict.outcome, verdict.reasons) == ("Q4_K_M", Outcome.PASSED, ())
    [result] = verdict.results
    assert (result.gate, result.measure, result.value, result.stderr, result.condition) == ("divergence", "kld.mean", value, stderr, "at most 0.1")
    assert result.reason.startswith("kld.mean is ")


def test_fails_outright_and_says_by_how_much() -> None:
    assert judge(GGUF, [KLD], kld(0.471, 0.02), {}).reasons == ("kld.mean is 0.471 ± 0.02 nats, at most 0.1 is allowed: 4.7 times the limit.",)
    assert judge(GGUF, [KLD], kld(0.12, 0.001), {}).reasons == ("kld.mean is 0.12 ± 0.001 nats, at most 0.1 is allowed: 0.02 nats beyond the limit.",)
    assert judge(GGUF, [ACCURACY], accuracy(0.824, 0.013), {}).reasons == (
        "mmlu.accuracy is 82.4 % ± 1.3 %, at least 90 % is allowed: 7.6 % beyond the limit.",
    )


@pytest.mark.parametrize(("value", "side"), [(0.099, "the right"), (0.101, "the wrong")])
def test_a_sample_that_is_too_small_decides_nothing(value: float, side: str) -> None:
    verdict = judge(GGUF, [KLD], kld(value, 0.01), {})
    assert verdict.outcome is Outcome.FAILED
    assert verdict.reasons[0].startswith(
        f"kld.mean is {value} ± 0.01 nats, at most 0.1 is allowed: undecided, the sample is too small. The value is on {side} side"
    )
    assert f"it may be as high as {value + 1.645 * 0.01:.4g}. Measure on more text" in verdict.reasons[0]
    verdict = judge(GGUF, [ACCURACY], accuracy(0.91, 0.02), {})
    assert "it may be as low as 87.71 %. Measure on more questions" in verdict.reasons[0]


def test_counts_say_what_was_counted() -> None:
    counted = Measurement(name="template.failures", value=4, unit="count", details=("one", "two.", "three", "four"))
    verdict = judge(GGUF, [TEMPLATE], {"template.failures": counted}, {})
    assert verdict.reasons == ("template.failures is 4, at most 0 is allowed: 4 too many. one; two; three; and 1 more.",)


def test_a_missing_measurement_is_an_error_and_blocks() -> None:
    verdict = judge(GGUF, [KLD, ACCURACY], accuracy(0.95, 0.01), {})
    assert verdict.outcome is Outcome.ERROR
    assert verdict.reasons == ("kld.mean was not measured, and the gate divergence asks for it.",)
    assert [result.outcome for result in verdict.results] == [Outcome.ERROR, Outcome.PASSED]
    verdict = judge(GGUF, [KLD], {}, {"measure": "llama.cpp cannot load it."})
    assert verdict.reasons == ("kld.mean could not be measured: llama.cpp cannot load it.",)


def test_a_recorded_error_blocks_even_beside_a_good_value() -> None:
    verdict = judge(GGUF, [KLD], kld(0.01), {"kld.mean": "it was interrupted"})
    assert (verdict.outcome, verdict.reasons) == (Outcome.ERROR, ("kld.mean could not be measured: it was interrupted",))
    assert judge(GGUF, [KLD], kld(0.01), {"mmlu.accuracy": "no questions"}).outcome is Outcome.PASSED


@pytest.mark.parametrize(("value", "stderr"), [(math.nan, None), (math.inf, None), (-math.inf, 0.1), (0.01, math.nan)])
def test_what_is_not_a_number_never_passes(value: float, stderr: float | None) -> None:
    assert judge(GGUF, [KLD], kld(value, stderr), {}).outcome is Outcome.ERROR


def test_gates_of_other_kinds_do_not_count() -> None:
    other = Gate(name="divergence", measure="kld.mean", at_most=0.1, kinds=(Kind.BNB_4BIT,))
    assert judge(GGUF, [ACCURACY, other], accuracy(0.95), {}).outcome is Outcome.PASSED


def test_without_any_gate_nothing_is_published() -> None:
    other = Gate(name="divergence", measure="kld.mean", at_most=0.1, kinds=(Kind.BNB_4BIT,))
    for gates in ([], [other]):
        verdict = judge(GGUF, gates, kld(0.0), {})
        assert (verdict.outcome, verdict.results) == (Outcome.ERROR, ())
        assert "no gate for variants of kind gguf" in verdict.reasons[0]


def test_an_error_outweighs_a_failure() -> None:
    verdict = judge(GGUF, [KLD, ACCURACY], kld(0.5), {})
    assert verdict.outcome is Outcome.ERROR
    assert len(verdict.reasons) == 2
