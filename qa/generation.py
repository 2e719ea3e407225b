"""Do greedy answers stop by themselves, without running in circles, and does the code in them parse?

Covered: an answer that does not end in an end-of-generation token, is empty, repeats itself, is one token over and over, holds broken characters, or
contains Python that does not parse.
Not covered: whether an answer is right.
"""

import ast
import re
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from config.progress import report, within
from config.words import Measurement
from engines.model import Model
from engines.repetition import repetition, repetitions
from qa.turns import prompt_tokens

SHOWN = 60  # characters of a prompt or answer that a sentence quotes

CODE = re.compile(r"```(?:python|py|python3)[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A question, and its conversation rendered up to where the answer begins."""

    question: str
    rendered: str


def check(model: Model, prompts: Sequence[Prompt], *, bos: str, stop: Collection[int], max_tokens: int) -> tuple[Measurement, Measurement]:
    """generation.failures: how many answers have something wrong with them; generation.repetition: the largest `repetition` of an answer.

    `bos` is how the template writes BOS, `stop` the end-of-generation tokens.
    """
    details, shares = [], [0.0]
    most = max_tokens * len(prompts)
    report(0, most, "tokens")
    for number, prompt in enumerate(prompts):
        with within(max_tokens * number, most, "tokens"):  # at most: an answer that ends early leaves the rest of its share out
            answer = model.generate(prompt_tokens(model, prompt.rendered, bos), max_tokens=max_tokens, stop=stop)
        report(max_tokens * (number + 1), most, "tokens")
        stopped = bool(answer) and answer[-1] in stop
        said = answer[:-1] if stopped else answer
        shares.append(repetition(said))
        text = model.detokenize(said) if said else ""
        if wrong := [*unfinished(said, stopped=stopped, max_tokens=max_tokens), *repetitions(said), *blemishes(text, stopped=stopped)]:
            details.append(f"To {_quoted(prompt.question)} the answer {', and '.join(wrong)}: {_quoted(text)}")
    return (
        Measurement(name="generation.failures", value=len(details), unit="count", n=len(prompts), details=tuple(details)),
        Measurement(name="generation.repetition", value=max(shares), unit="share", n=len(prompts)),
    )


def unfinished(tokens: Sequence[int], *, stopped: bool, max_tokens: int) -> list[str]:
    """What is wrong with where an answer ends."""
    if not stopped:
        return [f"does not end by itself within {min(len(tokens), max_tokens)} tokens"]
    return [] if tokens else ["is empty"]


def blemishes(text: str, *, stopped: bool) -> list[str]:
    """Broken characters, and Python code in fences that does not parse; an answer that was cut off may end in the middle of either."""
    if not stopped:
        return []
    wrong = ["holds bytes that are no characters"] if "\ufffd" in text else []
    for code in CODE.findall(text):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about escapes in strings
                ast.parse(code)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            wrong.append(f"contains Python that does not parse ({error})")
    return wrong


def _quoted(text: str) -> str:
    return f'"{text[:SHOWN]}…"' if len(text) > SHOWN else f'"{text}"'
