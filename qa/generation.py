"""Do greedy answers stop by themselves, without running in circles, and does the code in them parse?

Covered: an answer that does not end in an end-of-generation token, is empty, repeats itself, is one token over and over, holds broken characters or ids
of no token, or contains Python that does not parse.
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
from engines.repetition import lost, repetition, repetitions
from qa.turns import prompt_tokens

SHARED = 0.5  # of the prompts, at most, may the 16-bit model fail at and still be a yardstick
SHOWN = 60  # characters of a prompt or answer that a sentence quotes

CODE = re.compile(r"```(?:python|py|python3)[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A question, and its conversation rendered up to where the answer begins."""

    question: str
    rendered: str


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model said to one prompt, and what is wrong with it, in words."""

    question: str
    text: str
    wrong: Sequence[str]
    repetition: float

    @property
    def told(self) -> str:
        """What is wrong, as a sentence."""
        return f"To {_quoted(self.question)} the answer {', and '.join(self.wrong)}: {_quoted(self.text)}"


def answers(model: Model, prompts: Sequence[Prompt], *, bos: str, stop: Collection[int], max_tokens: int, unused: Collection[int] = ()) -> list[Answer]:
    """The model's greedy answers. `bos` is how the template writes BOS, `stop` the end-of-generation tokens, `unused` ids of no token."""
    found = []
    most = max_tokens * len(prompts)
    report(0, most, "tokens")
    for number, prompt in enumerate(prompts):
        with within(max_tokens * number, most, "tokens"):  # at most: an answer that ends early leaves the rest of its share out
            answer = model.generate(prompt_tokens(model, prompt.rendered, bos), max_tokens=max_tokens, stop=stop)
        report(max_tokens * (number + 1), most, "tokens")
        stopped = bool(answer) and answer[-1] in stop
        said = answer[:-1] if stopped else answer
        text = model.detokenize(said) if said else ""
        wrong = (*shortcomings(said, stopped=stopped, max_tokens=max_tokens), *gaps(said, unused), *blemishes(text, stopped=stopped))
        found.append(Answer(question=prompt.question, text=text, wrong=wrong, repetition=repetition(said)))
    return found


def measurements(found: Sequence[Answer], excused: Collection[int] = ()) -> tuple[Measurement, Measurement, Measurement]:
    """generation.failures: how many answers have something wrong with them; generation.repetition: the largest `repetition` of an answer; generation.excused:
    answers with something wrong that are no failures of a variant, because the 16-bit model fails at the same prompts. `excused` are their numbers.
    """
    failed = [answer.told for number, answer in enumerate(found) if answer.wrong and number not in excused]
    shared = [f"{answer.told}; the 16-bit model fails here too" for number, answer in enumerate(found) if answer.wrong and number in excused]
    return (
        Measurement(name="generation.failures", value=len(failed), unit="count", n=len(found), details=tuple(failed)),
        Measurement(name="generation.repetition", value=max((answer.repetition for answer in found), default=0.0), unit="share", n=len(found)),
        Measurement(name="generation.excused", value=len(shared), unit="count", n=len(found), details=tuple(shared)),
    )


def excusable(found: Sequence[Answer]) -> list[int]:
    """Numbers of the prompts at which the 16-bit model itself fails; none when it fails at more than half, for then something is wrong with all answers.

    Greedy answers of small models run in circles at some prompts by themselves (Holtzman et al., arXiv 1904.09751). What a variant does there tells nothing
    of its quantization.
    """
    failed = [number for number, answer in enumerate(found) if answer.wrong]
    return failed if len(failed) <= SHARED * len(found) else []


def shortcomings(tokens: Sequence[int], *, stopped: bool, max_tokens: int) -> list[str]:
    """What is wrong with where an answer ends, and with how it repeats itself; one that is lost in a loop was ended there."""
    if not tokens:
        return ["is empty"]
    ends = stopped or lost(tokens)
    return [*([] if ends else [f"does not end by itself within {min(len(tokens), max_tokens)} tokens"]), *repetitions(tokens)]


def gaps(tokens: Sequence[int], unused: Collection[int]) -> list[str]:
    """Ids of no token, rows that pad the embeddings: nothing is written for them, so that the text does not show what is wrong."""
    found = [token for token in tokens if token in unused]
    return [f"holds ids that are no tokens, {len(found)} of {len(tokens)}, {found[0]} for one"] if found else []


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
