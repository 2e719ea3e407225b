import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from config.words import Measurement
from engines import llama
from engines.model import Model
from engines.repetition import lost
from qa import generation
from qa.generation import Prompt
from tests.qa.conftest import Release

STOP = 0


@dataclass
class Speaker:
    """Says what it is told to, as characters; the token 0 ends an answer."""

    answer: str
    stops: bool = True

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool = True) -> list[int]:
        return [ord(character) for character in text]

    def detokenize(self, tokens: Sequence[int]) -> str:
        return "".join(map(chr, tokens))

    def generate(self, prompt: Sequence[int], *, max_tokens: int, stop: Collection[int]) -> list[int]:
        assert STOP in stop
        return ([ord(character) for character in self.answer] + [STOP] * self.stops)[:max_tokens]


def measured(model: Model, prompts: Sequence[Prompt], **given: Any) -> tuple[Measurement, ...]:
    return generation.measurements(generation.answers(model, prompts, **given))


def failures(answer: str, *, stops: bool = True, max_tokens: int = 2000) -> list[str]:
    prompt = Prompt(question="Why?", rendered="user: Why?\nassistant:")
    failed, repetition, _ = measured(Speaker(answer, stops), [prompt], bos="<s>", stop={STOP}, max_tokens=max_tokens)
    assert failed.value == len(failed.details)
    assert failed.n == repetition.n == 1
    return list(failed.details)


PROSE = "".join(random.Random(7).choices("abcdefghijklmnopqrstuvwxyz     ,.", k=1500))


@pytest.mark.parametrize(
    "answer",
    [
        "Because.",
        PROSE,
        "ha ha ha ha!",
        "1 2 3 4 5 6 7 8 9 10 11 12",
        "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |",
        "```python\nprint('\\d')\n```\nThat is all.",
        "```\nnot python at all(\n```",
    ],
)
def test_good_answers_pass(answer: str) -> None:
    assert failures(answer) == []


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("", "is empty"),
        ("x" * 9, "is one token, said 9 times"),
        ("x" * 40, "repeats the same token 40 times in a row"),
        ("Because it is so. " * 20, "repeats the same 18 tokens 20 times in a row"),
        ("Well: " + "GG" * 30, "repeats the same token 60 times in a row"),
        ("Well. " + PROSE[:30] * 6, "repeats the same 30 tokens 6 times in a row"),
        ("".join(f"{PROSE[:80]}{i}" for i in range(12)), "goes in circles"),
        ("The end \ufffd", "holds bytes that are no characters"),
        ("```python\ndef f(:\n```", "contains Python that does not parse (invalid syntax"),
        ("Try ```py\nx = 1\n``` and\n```Python\nx = = 2\n```", "contains Python that does not parse"),
        ("```python\ndef f(x):\n", "contains Python that does not parse"),
    ],
)
def test_bad_answers_are_told_apart(answer: str, said: str) -> None:
    [detail] = failures(answer)
    assert detail.startswith(f'To "Why?" the answer {said}')


def test_repetition_is_a_number() -> None:
    assert generation.repetition([1, 2, 3]) == generation.repetition(range(1000)) == 0
    assert generation.repetition([7] * 105) == 0.99
    assert generation.repetition([*range(50), *range(50)]) == 1 - 50 / 95
    prompts = [Prompt(question=text, rendered=text) for text in "ab"]
    _, repeated, _ = measured(Speaker("x" * 105), prompts, bos="", stop={STOP}, max_tokens=200)
    assert (repeated.name, repeated.value, repeated.unit, repeated.n) == ("generation.repetition", 0.99, "share", 2)


def test_code_that_is_nested_without_end_is_no_code() -> None:
    assert generation.blemishes("```python\n" + "(" * 100_000 + "\n```", stopped=True) != []


def test_ids_of_no_token_are_told_for_the_text_does_not_show_them() -> None:
    prompt = Prompt(question="Why?", rendered="user: Why?\nassistant:")
    given: dict[str, Any] = {"bos": "<s>", "stop": {STOP}, "max_tokens": 50}
    [answer] = generation.answers(Speaker("Because."), [prompt], **given, unused={ord("c"), ord("z")})
    assert answer.wrong == (f"holds ids that are no tokens, 1 of 8, {ord('c')} for one",)
    [answer] = generation.answers(Speaker("Because."), [prompt], **given, unused={ord("z")})
    assert answer.wrong == ()


def test_an_answer_must_end_by_itself() -> None:
    assert failures(PROSE, stops=False, max_tokens=100) == [f'To "Why?" the answer does not end by itself within 100 tokens: "{PROSE[:60]}…"']
    assert failures("```python\ndef f(", stops=False) == ['To "Why?" the answer does not end by itself within 16 tokens: "```python\ndef f("']


def test_everything_wrong_with_an_answer_is_said_at_once() -> None:
    [detail] = failures("x" * 100, stops=False, max_tokens=50)
    assert detail == f'To "Why?" the answer does not end by itself within 50 tokens, and repeats the same token 50 times in a row: "{"x" * 50}"'


@pytest.mark.parametrize("length", [1, 5, 90, 400])
def test_an_answer_is_ended_where_it_does_not_come_out_of_a_loop_and_told_so(length: int) -> None:
    piece = [ord(letter) for letter in random.Random(length).choices("abcdefghijklmnopqrstuvwxyz", k=length)]
    answer = [*map(ord, PROSE), *piece * (4096 // length)]
    ended = next(end for end in range(1, len(answer)) if lost(answer[:end]))
    assert max(256, 4 * length) <= ended - len(PROSE) + length <= max(256, 4 * length) + length + 32
    [detail] = failures("".join(map(chr, answer[:ended])), stops=False, max_tokens=4096)
    assert ("repeats the same" if length > 1 else "repeats the same token") in detail
    assert "does not end by itself" not in detail
    assert not lost([*answer[:ended], ord("!")]), "an answer that goes on is not lost"
    assert not any(lost([*map(ord, PROSE), *piece * 3][:end]) for end in range(3000)), "a piece said three times is no loop"


def test_the_bundled_model_answers_and_stops(clean: Release) -> None:
    questions = ("Who are you?", "What is 5 minus 2?", "Write a Python function that adds two numbers n and a.")
    prompts = [Prompt(question=text, rendered=f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n") for text in questions]
    with llama.open_model(clean.gguf, context=512, threads=1) as model:
        stop = model.vocabulary.end_of_generation
        assert measured(model, prompts, bos="<s>", stop=stop, max_tokens=128)[0].details == ()
        running_on, *_ = measured(model, prompts, bos="<s>", stop={5}, max_tokens=64)
    assert running_on.value >= 2  # it sometimes ends the document by itself
