import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from config.recipe import Gate
from config.words import Kind, Measurement, Outcome, Sample, Variant
from qa import divergence, mmlu, relative
from qa.gates import judge
from qa.relative import Reference

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


RATIO = Gate(name="no regression", measure="kld.mean", relative_to="published", compare="ratio", at_most=1.05)
STOCK = Gate(name="better than stock", measure="kld.mean", relative_to="stock", compare="difference", at_most=0)
BASIS = {"kld": "wikitext", "mmlu": "questions"}
SAMPLE = Sample(basis=BASIS)


def published(value: float, stderr: float | None = 0.0, samples: Sequence[Sample] = (SAMPLE,)) -> dict[str, Reference]:
    return {"published": Reference(name="Q4_K_M as run 3 published it", measurements=kld(value, stderr), samples=samples)}


@pytest.mark.parametrize(("value", "outcome"), [(0.0104, Outcome.PASSED), (0.0106, Outcome.FAILED)])
def test_a_ratio_to_what_is_published(value: float, outcome: Outcome) -> None:
    (result,) = judge(GGUF, [RATIO], kld(value, 0.0), {}, samples=[SAMPLE], references=published(0.01)).results
    assert (result.outcome, result.condition, result.reference) == (outcome, "at most 1.05 × published", 0.01)
    assert result.limit == pytest.approx(0.0105)
    assert "at most 1.05 × published (Q4_K_M as run 3 published it: 0.01 ± 0), that is 0.0105, is allowed" in result.reason


def test_independent_errors_of_both_sides_count() -> None:
    """0.012 ± 0.001 against 1.05 × (0.01 ± 0.001): 1.645 × 0.00145 = 0.0024 decides."""
    (result,) = judge(GGUF, [RATIO], kld(0.0129, 0.001), {}, samples=[SAMPLE], references=published(0.01, 0.001)).results
    assert result.margin == pytest.approx(1.6449 * math.hypot(0.001, 1.05 * 0.001), rel=1e-4)
    assert (result.outcome, result.undecided) == (Outcome.FAILED, False)
    (result,) = judge(GGUF, [RATIO], kld(0.0128, 0.001), {}, samples=[SAMPLE], references=published(0.01, 0.001)).results
    assert (result.outcome, result.undecided) == (Outcome.FAILED, True)


def scores(noise: float, seed: int) -> divergence.Scores:
    """12 windows of very unequal difficulty, on which this variant does somewhat worse than the seed's."""
    generator = np.random.default_rng(0)
    hard = generator.gamma(0.5, size=(12, 1)) * np.ones((12, 20))
    values = hard + noise + 0.01 * np.random.default_rng(seed).normal(size=hard.shape)
    return divergence.Scores(kld=values, same_top=np.ones_like(values), difference=values, reference_nll=values, variant_nll=values)


def test_on_the_same_windows_the_error_is_that_of_the_difference() -> None:
    ours, theirs = scores(0.01, 1), scores(0.0, 2)
    measured = [{item.name: item for item in divergence.measurements(item)} for item in (ours, theirs)]
    samples = [
        Sample(basis=BASIS, windows="w", influences={name: tuple(each) for name, each in divergence.influences(item).items()}) for item in (ours, theirs)
    ]
    references = {"published": Reference(name="before", measurements=measured[1], samples=[samples[1]])}
    gate = RATIO.model_copy(update={"compare": "difference", "at_most": 0.02})
    (result,) = judge(GGUF, [gate], measured[0], {}, samples=[samples[0]], references=references).results
    expected = divergence.clustered(ours.kld - theirs.kld)[1]
    assert result.margin == pytest.approx(1.6449 * expected, rel=1e-4)
    assert expected < 0.02 * measured[0]["kld.mean"].stderr
    assert result.outcome is Outcome.PASSED
    other = {"published": replace(references["published"], samples=[replace(samples[1], windows="others")])}
    (result,) = judge(GGUF, [gate], measured[0], {}, samples=[samples[0]], references=other).results
    assert result.undecided, "independent errors are too large to decide"


def test_on_the_same_questions_the_error_is_that_of_the_answers_that_differ() -> None:
    """Both answer the same 80 of 100 questions rightly, one of them 4 more: the error of 4 changes in 100 questions, and of one more either way."""
    ours, theirs = ({"calendar": "3" * right + "2" * (100 - right)} for right in (84, 80))
    samples = [Sample(basis=BASIS, answers=answers) for answers in (ours, theirs)]
    references = {"published": Reference(name="before", measurements=accuracy(0.80, 0.04), samples=[samples[1]])}
    gate = ACCURACY.model_copy(update={"relative_to": "published", "compare": "difference", "at_least": -0.03})
    (result,) = judge(GGUF, [gate], accuracy(0.84, 0.037), {}, samples=[samples[0]], references=references).results
    expected = math.sqrt((4 * 0.96**2 + 96 * 0.04**2) / 99 / 100 + 2 / 100**2)
    assert (result.margin, result.outcome) == (pytest.approx(1.6449 * expected, rel=1e-3), Outcome.PASSED)
    old = {"published": replace(references["published"], samples=[Sample(basis=BASIS)])}  # an older version kept no answers
    (result,) = judge(GGUF, [gate], accuracy(0.84, 0.037), {}, samples=[samples[0]], references=old).results
    assert (result.margin, result.undecided) == (pytest.approx(1.6449 * math.hypot(0.037, 0.04), rel=1e-3), True)


def test_a_window_that_only_one_was_measured_on_counts_for_it_alone() -> None:
    ours, theirs = [0.1, -0.1, 0.05, -0.05], [0.1, -0.1, None, None]
    assert relative.paired(ours, theirs, 1.0) == pytest.approx(math.sqrt(4 / 3 * 2 * 0.05**2))


def test_nothing_published_yet_passes_and_says_so() -> None:
    (result,) = judge(GGUF, [RATIO], kld(0.3, 0.01), {}, samples=[SAMPLE], references={"published": None}).results
    assert result.outcome is Outcome.PASSED
    assert result.reason == "kld.mean is 0.3 ± 0.01 nats. Nothing of this variant was published before, so it is compared with nothing."


def test_what_cannot_be_compared_blocks() -> None:
    def reason(references: dict[str, Reference], gate: Gate = RATIO) -> str:
        verdict = judge(GGUF, [gate], kld(0.01, 0.001), {}, samples=[SAMPLE], references=references)
        assert verdict.outcome is Outcome.ERROR
        return verdict.reasons[0]

    other = Sample(basis={"kld": "another text"})
    assert "another text, context, or other questions" in reason(published(0.01, samples=[other]))
    assert "another text" in reason(published(0.01, samples=[])), "an older version recorded no text"
    assert "was not measured in this run" in reason({})
    assert "has no kld.mean: it crashed" in reason({"published": Reference(name="x", measurements={}, samples=[SAMPLE], error="it crashed")})
    assert "has no kld.mean." in reason(published(math.nan))
    assert "below 0" in reason(published(-0.01))


def test_a_planned_mix_is_compared_with_its_stock_mix_and_a_stock_mix_with_nothing() -> None:
    planned = Variant(tag="UD-Q4_K_XL", kind=Kind.GGUF, like="Q4_K_M")
    stock = {"stock": Reference(name="Q4_K_M", measurements=kld(0.01, 0.0), samples=[SAMPLE])}
    assert judge(planned, [STOCK], kld(0.009, 0.0), {}, samples=[SAMPLE], references=stock).outcome is Outcome.PASSED
    verdict = judge(planned, [STOCK], kld(0.011, 0.0), {}, samples=[SAMPLE], references=stock)
    assert verdict.outcome is Outcome.FAILED
    assert "at most stock + 0 (Q4_K_M: 0.01 ± 0), that is 0.01, is allowed" in verdict.reasons[0]
    assert [result.gate for result in judge(GGUF, [KLD, STOCK], kld(0.011, 0.0), {}, samples=[SAMPLE], references=stock).results] == ["divergence"]


def test_each_planned_look_costs_confidence_and_the_last_says_so() -> None:
    """Three looks at 95 % together: 1 - 0.05 / 3 each, which is 2.128 standard errors."""
    sample = Sample(basis=BASIS, influences={"kld.mean": ()}, look=1, looks=3)
    (result,) = judge(GGUF, [KLD], kld(0.0799, 0.01), {}, samples=[sample]).results
    assert result.margin == pytest.approx(0.02128, rel=1e-3)
    assert (result.undecided, result.look, result.looks) == (True, 1, 3)
    (result,) = judge(GGUF, [KLD], kld(0.0799, 0.01), {}, samples=[replace(sample, look=3)]).results
    assert "undecided, the sample is too small, even after 3 looks, the last at 1000 tokens." in result.reason
    asked = [replace(sample, basis={"kld": "wikitext"}), Sample(basis={"mmlu": "questions"}, look=2, looks=2)]
    (result,) = judge(GGUF, [ACCURACY], accuracy(0.919, 0.01), {}, samples=asked).results
    assert (result.margin, result.look, result.looks) == (pytest.approx(0.0196, rel=1e-3), 2, 2), "questions have looks of their own"
    assert "undecided, the sample is too small, even after 2 looks, the last at 100 questions." in result.reason
    (result,) = judge(GGUF, [ACCURACY], accuracy(0.919, None), {}, samples=asked).results
    assert (result.outcome, result.looks) == (Outcome.PASSED, 1), "what has no error is decided at any size"


def test_repeated_looks_pass_a_variant_at_the_limit_in_at_most_5_percent_of_cases() -> None:
    """A variant exactly at the limit, looked at after 1, 2 and 4 parts until decided, many times over."""
    generator = np.random.default_rng(3407)
    wrong, runs = 0, 2000
    for _ in range(runs):
        each = generator.normal(0.1, 0.02, size=400)
        for look, count in enumerate((100, 200, 400), start=1):
            sample = Sample(basis=BASIS, influences={"kld.mean": ()}, look=look, looks=3)
            found = each[:count]
            (result,) = judge(GGUF, [KLD], kld(float(found.mean()), float(found.std() / math.sqrt(count))), {}, samples=[sample]).results
            if not result.undecided:
                break
        wrong += result.outcome is Outcome.PASSED
    assert 0.01 * runs < wrong < 0.05 * runs


def test_so_do_repeated_looks_at_answers() -> None:
    """The same with flips, of which 8 in 100 make answers wrong and 3 right, against a limit of 5 points less."""
    generator = np.random.default_rng(3407)
    gate = Gate(name="knowledge", measure="mmlu.difference", at_least=-0.05)
    wrong, runs = 0, 500
    for _ in range(runs):
        flips = generator.choice([-1, 0, 1], size=400, p=[0.08, 0.89, 0.03])
        before, after = ([_answer(number, right) for number, right in enumerate(given)] for given in (flips < 1, flips > -1))
        for look, count in enumerate((100, 200, 400), start=1):
            sample = Sample(basis={"mmlu": "questions"}, look=look, looks=3)
            measured = {item.name: item for item in mmlu.against(before[:count], after[:count])}
            (result,) = judge(GGUF, [gate], measured, {}, samples=[sample]).results
            if not result.undecided:
                break
        wrong += result.outcome is Outcome.PASSED
    assert 0 < wrong < 0.05 * runs


def _answer(number: int, right: bool) -> mmlu.Answer:
    return mmlu.Answer(subject="calendar", question=number, right="A", chosen="A" if right else "B", single="A", shots=5)


def test_a_gate_may_be_for_one_variant() -> None:
    gate = Gate(name="float16", measure="float16.failures", at_most=0, tags=("F16",))
    assert [item.gate for item in judge(GGUF, [KLD, gate], kld(0.01), {}).results] == ["divergence"]
    assert judge(Variant(tag="F16", kind=Kind.GGUF), [gate], {}, {}).outcome is Outcome.ERROR


def test_what_is_missing_for_one_reason_is_told_once() -> None:
    same_top = Gate(name="same top", measure="same_top", at_least=0.9)
    verdict = judge(GGUF, [KLD, same_top, ACCURACY], accuracy(0.5), {"kld.mean": "no memory.", "same_top": "no memory."})
    assert verdict.outcome is Outcome.ERROR
    assert verdict.reasons[0] == "kld.mean, same_top could not be measured: no memory."
    assert verdict.reasons[1].startswith("mmlu.accuracy is 50 %")
    assert len(verdict.reasons) == 2
    assert [result.reason for result in verdict.results][1] == "same_top could not be measured: no memory."
