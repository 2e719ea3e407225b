from dataclasses import dataclass, field

import pytest

from config.cards import Recommendation
from config.words import Measurement
from publishers import grades


@dataclass(frozen=True, kw_only=True)
class Candidate:
    tag: str
    bytes: int
    measurements: dict[str, Measurement] = field(default_factory=dict)
    waivers: tuple[str, ...] = ()


def kld(value: float, stderr: float | None = None) -> Measurement:
    return Measurement(name="kld.mean", value=value, unit="nats", stderr=stderr)


def candidate(tag: str, size: int, value: float, stderr: float = 0.0, **other: tuple[str, ...]) -> Candidate:
    return Candidate(tag=tag, bytes=size, measurements={"kld.mean": kld(value, stderr)}, **other)


RULE = Recommendation(at_most=0.05)


# mean KLD and share of same top tokens of Llama 2 7B and Llama 3 8B in llama.cpp's tools/perplexity/README.md
@pytest.mark.parametrize(
    ("value", "top", "word"),
    [
        (0.000369, 0.98846, "nearly lossless"),  # Llama 2 7B q8_0
        (0.005452, 0.96031, "excellent"),  # Llama 3 8B q6_K
        (0.031273, 0.91901, "very good"),  # Llama 3 8B q4_K_M
        (0.445132, 0.71138, "poor"),  # Llama 3 8B q2_K
    ],
)
def test_words_are_those_of_known_files(value: float, top: float, word: str) -> None:
    assert grades.divergence(kld(value)) == word
    assert grades.same_top(Measurement(name="same_top", value=top, unit="share")) == word


def test_nothing_measured_has_no_word_and_no_divergence_is_identity() -> None:
    assert (grades.divergence(None), grades.same_top(None)) == (None, None)
    assert grades.divergence(kld(0.0)) == "identical"
    assert grades.same_top(Measurement(name="same_top", value=1.0, unit="share")) == "identical"


def test_the_smallest_that_keeps_the_bound_is_recommended() -> None:
    rows = [candidate("Q8_0", 8000, 0.001), candidate("Q4_K_M", 4900, 0.03), candidate("Q3_K_M", 4000, 0.09)]
    assert grades.recommended(rows, RULE) == "Q4_K_M"
    assert grades.recommended(rows, Recommendation(at_most=0.1)) == "Q3_K_M"
    assert grades.recommended(rows, Recommendation(at_most=0.0001)) is None
    assert grades.recommended(rows, "Q8_0") == "Q8_0"
    assert grades.recommended(rows, "Q2_K") is None, "it was not published"
    assert grades.recommended(rows, None) is None


def test_of_one_size_the_closest_is_recommended() -> None:
    rows = [candidate("Q4_K_M", 4900, 0.03), candidate("UD-Q4_K_XL", 4905, 0.02), candidate("Q4_K_S", 5100, 0.01)]
    assert grades.recommended(rows, RULE) == "UD-Q4_K_XL"


def test_the_bound_holds_with_the_error() -> None:
    rows = [candidate("Q8_0", 8000, 0.001), candidate("Q4_K_M", 4900, 0.045, 0.004)]
    assert grades.recommended(rows, RULE) == "Q8_0", "0.045 + 1.645 · 0.004 is more than 0.05"
    above = Recommendation(measure="same_top", at_least=0.9)
    sure, unsure = (Measurement(name="same_top", value=0.91, unit="share", stderr=stderr) for stderr in (0.005, 0.02))
    assert [grades.keeps(above, found) for found in (sure, unsure, None)] == [True, False, False]


def test_what_was_waived_or_not_measured_is_not_recommended() -> None:
    rows = [candidate("Q8_0", 8000, 0.001), candidate("Q4_K_M", 4900, 0.03, waivers=("mmlu",)), Candidate(tag="Q2_K", bytes=3000)]
    assert grades.recommended(rows, RULE) == "Q8_0"


def test_a_file_that_is_no_larger_and_surely_closer_outdoes_others_and_each_is_named_once() -> None:
    rows = [candidate("IQ4_XS", 90, 0.16, 0.001), candidate("UD-Q3_K_XL", 93, 0.10, 0.001), candidate("Q3_K_M", 93, 0.20, 0.001), candidate("Q8_0", 140, 0.001)]
    assert grades.outdone(rows) == [("UD-Q3_K_XL", ["Q3_K_M"])]
    near = [candidate("Q4_K_S", 90, 0.10, 0.004), candidate("Q4_K_M", 95, 0.105, 0.004)]
    assert grades.outdone(near) == [], "their errors overlap"
    assert grades.outdone([candidate("Q4_K_S", 90, 0.10, 0.001), near[1]]) == []
    assert grades.outdone([near[0], candidate("Q4_K_M", 95, 0.12, 0.004)]) == [("Q4_K_S", ["Q4_K_M"])]
    assert grades.outdone([candidate("Q4_K_S", 90, 0.10, waivers=("divergence",)), candidate("Q4_K_M", 95, 0.2)]) == [], "a person set a gate aside for it"


def test_of_files_that_are_the_same_the_first_is_named() -> None:
    same = [candidate("Q2_K", 85, 0.4, 0.01), candidate("Q3_K_S", 85, 0.4, 0.01)]
    assert grades.outdone(same) == [("Q2_K", ["Q3_K_S"])]
    assert grades.outdone([candidate("16bit", 270, 0.0), candidate("BF16", 271, 0.0)]) == [], "nothing is lost in either"
    assert grades.outdone([Candidate(tag="Q4_0", bytes=80), candidate("Q4_1", 90, 0.1)]) == [], "of one nothing is known"
