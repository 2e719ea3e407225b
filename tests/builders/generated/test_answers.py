"""Answers that must not be kept, and all of them together that must not be calibrated on.

FIGURES is what the thresholds were held against.
"""

import random
from collections.abc import Iterator, Sequence

import pytest

from builders.generated import answers
from builders.generated.answers import Tally
from config.errors import MeasurementError

FIGURES = {  # what sound models wrote to the prompts for calibration: 15 to 38 thousand tokens each
    "the bundled one of 3.7M parameters, at its own sampling": {"dropped": 0.015, "same": 0.037, "entropy": 6.48, "density": 0.239, "distinct": 0.508},
    "SmolLM2-135M-Instruct, which knows English only": {"dropped": 0.229, "same": 0.011, "entropy": 9.42, "density": 0.330, "distinct": 0.739},
    "Gemma 3 270M, a base model": {"dropped": 0.132, "same": 0.026, "entropy": 9.78, "density": 0.357, "distinct": 0.865},
}
WORDS = [f"word{number}" for number in range(400)]


def tokens_of(text: str) -> list[int]:
    return [sum(map(ord, word)) * 31 + len(word) for word in text.split()]


def tally(texts: Sequence[str], asked: str = "What is it?") -> Tally:
    found = Tally()
    for text in texts:
        found.add(tokens_of(text), text, asked=asked, ended=True)
    return found


def unfit(found: Tally) -> list[str]:
    return list(answers.unfit(found, found.figures))


def varied(count: int, length: int = 40) -> Iterator[str]:
    chance = random.Random(1)
    yield from (" ".join(chance.choices(WORDS, k=length)) for _ in range(count))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "are empty"),
        (" \n ", "are empty"),
        ("What is it?", "only repeat the prompt"),
        (" What is it? \n", "only repeat the prompt"),
        ("yes " * 30, "repeat themselves"),
        ("The sea is blue and so is the sky. " * 5, "repeat themselves"),
        ("Sure: \ufffd\ufffd", "hold bytes that are no characters"),
    ],
)
def test_single_answers_are_dropped_for_a_reason(text: str, reason: str) -> None:
    assert answers.fault(tokens_of(text), text, asked="What is it?") == reason


@pytest.mark.parametrize("text", ["Paris.", "12", "It is what it is.", "1. One\n2. Two\n3. Three", "What is it? It is a lamp.", "no no no"])
def test_short_and_plain_answers_are_kept(text: str) -> None:
    assert answers.fault(tokens_of(text), text, asked="What is it?") is None


def test_dropped_answers_are_counted_by_reason_and_are_no_fault_while_they_are_few() -> None:
    found = tally([*varied(60), *["yes " * 30] * 5, ""])
    assert found.dropped == {"repeat themselves": 5, "are empty": 1}
    assert len(found.kept) == 60
    assert not found.hopeless
    assert unfit(found) == []


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["yes " * 30] * 40, "100% had to be dropped, 70% are allowed: 40 repeat themselves"),
        ([*varied(10), *[""] * 30], "75% had to be dropped, 70% are allowed: 30 are empty"),
        (["What is it?"] * 40, "40 only repeat the prompt"),
        ([*varied(30), *["I am sorry."] * 20], '40% of 50 answers are the same, 25% are allowed: "I am sorry."'),
        ([" ".join(["a", "b"] * number) for number in range(1, 6)] * 10, "bits of entropy, at least 3 are wanted"),
        ([" ".join([*WORDS[:20], str(number), *WORDS[20:40]]) for number in range(400)], "distinct, at least 3% are wanted"),
        ([("The answer is of course number " + str(number) + ". ") + " ".join(WORDS[:60]) for number in range(100)], "can be compressed to"),
    ],
)
def test_a_degenerate_model_is_found(texts: Sequence[str], words: str) -> None:
    found = tally(texts)
    sentences = unfit(found)
    assert any(words in sentence for sentence in sentences), sentences
    with pytest.raises(MeasurementError, match="The text that the model wrote cannot be used"):
        answers.refuse({"failures": sentences})


@pytest.mark.parametrize("model", FIGURES)
def test_sound_models_are_far_from_the_thresholds(model: str) -> None:
    found = FIGURES[model]
    assert found["dropped"] < answers.DROPPED / 2
    assert found["same"] < answers.SAME / 2
    assert found["entropy"] > 2 * answers.ENTROPY
    assert found["density"] > 3 * answers.DENSITY
    assert found["distinct"] > 10 * answers.DISTINCT


def test_a_model_that_only_loops_is_given_up_early() -> None:
    assert tally(["yes " * 30] * answers.ENOUGH).hopeless
    assert not tally(["yes " * 30] * (answers.ENOUGH - 1)).hopeless


def test_one_sentence_to_everything_is_no_degeneration() -> None:
    places, things = ("kitchen", "garden", "cellar", "attic", "hall", "street"), WORDS[:50]
    found = tally([f"The {thing} is in the {place}." for thing in things for place in places])
    assert unfit(found) == []


def test_a_model_that_could_be_asked_nothing_is_a_failure() -> None:
    assert unfit(Tally()) == ["The model was asked nothing: no prompt could be rendered in its chat template."]


def test_a_sound_text_is_not_refused() -> None:
    answers.refuse({"failures": []})


def test_figures_of_known_texts() -> None:
    assert answers.entropy([[1, 2], [3, 4]]) == 2
    assert answers.entropy([[7] * 10]) == 0
    assert answers.entropy([]) == 0
    assert answers.distinct([[1, 2, 3, 4, 1, 2, 3, 4]]) == 4 / 5
    assert answers.distinct([[1]]) == 1
    assert answers.density([]) == 1
    assert answers.density(["a" * 10000]) < 0.01
