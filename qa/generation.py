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
from qa.turns import prompt_tokens

LONGEST_LOOP = 64  # tokens in a piece that repeats
LOOP_TIMES = 4  # a piece said so often in a row …
LOOP_TOKENS = 24  # … and so many tokens altogether is a loop: shorter ones occur in lists, sums and tables
ONE_TOKEN = 8  # times in a row, and nothing else in the answer
NGRAM = 6  # tokens
NGRAM_FROM = 96  # tokens in an answer before its n-grams are counted
NGRAM_SHARE = 0.5  # of the n-grams occurred before: an answer that goes in circles with small changes
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


def repetitions(tokens: Sequence[int]) -> list[str]:
    """A piece repeated in a row at any place, one token for instance, or else too many n-grams that occurred before."""
    for length in range(1, min(LONGEST_LOOP, len(tokens) // LOOP_TIMES) + 1):
        run = _longest_run(tokens, length)
        if run >= max(LOOP_TIMES * length, LOOP_TOKENS):
            what = "token" if length == 1 else f"{length} tokens"
            return [f"repeats the same {what} {run // length} times in a row"]
    if len(tokens) >= ONE_TOKEN and len(set(tokens)) == 1:
        return [f"is one token, said {len(tokens)} times"]
    share = repetition(tokens)
    if len(tokens) >= NGRAM_FROM and share > NGRAM_SHARE:
        return [f"goes in circles ({share:.0%} of its runs of {NGRAM} tokens occurred before, {NGRAM_SHARE:.0%} are allowed)"]
    return []


def repetition(tokens: Sequence[int]) -> float:
    """Share of the n-grams that occurred before in the same answer, 1 - distinct / all (seq-rep-n, arXiv 1908.04319); 0 in one too short to have any."""
    ngrams = [tuple(tokens[i : i + NGRAM]) for i in range(len(tokens) - NGRAM + 1)]
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def _longest_run(tokens: Sequence[int], length: int) -> int:
    """Tokens in the longest stretch that repeats its first `length` tokens."""
    longest = current = 0
    for i in range(length, len(tokens)):
        current = current + 1 if tokens[i] == tokens[i - length] else 0
        longest = max(longest, current)
    return longest + length if longest else 0


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
