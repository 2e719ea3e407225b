"""What ends a turn, by what the template writes and by what is said to end generation."""

import re

import pytest

from engines.chat import render
from qa import turns
from qa.prompt_checks import Specials, end_of_turn

ELEMENTS = "<|open|>{{ m.role }}<|sep|>{{ m.content }}<|close|>{{ m.role }}<|sep|><|end|>"
PLAIN = "<|open|>{{ m.role }}<|sep|>{{ m.content }}<|end|>\n{{ '<|stop|>' if loop.last else '' }}"
TOKENS = ["<|open|>", "<|sep|>", "<|close|>", "<|end|>", "<|stop|>"]


def said(template: str, eos: str) -> list[str]:
    number = TOKENS.index(eos)
    specials = Specials(
        owner="the tokenizer's",
        bos=None,
        eos=number,
        pad=None,
        names=("bos_token", "eos_token", "pad_token"),
        stops={"generation_config.json": {number}},
        named=lambda token: "none" if token is None else TOKENS[token],
        marks=lambda text: [TOKENS.index(found) for found in re.findall(r"<\|\w+\|>", text)],
    )
    whole = f"{{% for m in messages %}}{template}{{% endfor %}}"
    return list(end_of_turn(specials, turns.find(lambda messages: render(whole, messages, special_tokens={}))))


@pytest.mark.parametrize("template", [ELEMENTS, PLAIN])
def test_the_right_end_is_none_to_be_told_of(template: str) -> None:
    assert said(template, "<|end|>") == []


def test_what_the_template_writes_after_the_last_turn_alone_ends_none() -> None:
    assert said(PLAIN, "<|stop|>") == [
        "the assistant's turn ends with <|end|>, but generation_config.json stops only at <|stop|>: answers run on after the turn",
        "the assistant's turn ends with <|end|>, but the tokenizer's eos_token is <|stop|>",
    ]
