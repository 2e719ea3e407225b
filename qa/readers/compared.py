"""Whether a reading is that of the same model: the same tokens, and next-token distributions as near as rounding explains.

llama.cpp rounds what enters a quantized matrix to 8 bits, so that the order in which it adds decides how values are rounded: it reads one file in two ways
when it takes tokens together or by twos. That divergence is what quantization explains, and is measured for each file. Others, which compute with the same
weights in float32 or in a llama.cpp of their own, may differ by TIMES as much; of several models and types none came to twice.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from config import alike
from engines.model import Floats
from qa.readers.words import Outcome, Reading, Reference, Result

TIMES = 4.0  # the divergence of a file's two readings by llama.cpp
LEAST = 0.002  # nats by which readings may differ in any case: sums in another order, and 16 bits
FEW = 8  # distributions of which not the mean counts, but what any one may be
MARGIN = 0.5  # nats by which the reference may prefer its own token to the one that a reader chooses
SHOWN = 6  # tokens that a sentence names


def judge(reference: Reference, found: Reading) -> Outcome:
    """What came of a reading."""
    wrong: list[str] = []
    right: list[str] = []
    if found.ids is not None:
        same = found.ids == reference.tokens
        (right if same else wrong).append("tokens" if same else _tokens(reference.tokens, found.ids))
    if found.logprobs is not None:
        kld = divergence(reference.logprobs, found.logprobs)
        most = bound(reference, len(found.logprobs))
        near = kld <= most  # which what is not a number is not
        (right if near else wrong).append(f"KLD {max(kld, 0.0):.1g}" if near else f"KLD {kld:.2g} from {reference.by}, where {most:.1g} can be explained")
    if found.answer is not None:
        near = (gap := departure(reference, found.answer)) <= MARGIN
        (right if near else wrong).append("greedy answer" if near else f"a token of its greedy answer is {gap:.2g} nats less likely in {reference.by}")
    if wrong:
        return Outcome(result=Result.OTHER, words="; ".join([*wrong, *(f"the same {part}" for part in right)]))
    return Outcome(result=Result.SAME, words=", ".join(right))


def bound(reference: Reference, rows: int) -> float:
    """Most nats of mean KL divergence over so many distributions that rounding explains."""
    noise = 0.0 if not reference.noise else max(reference.noise) if rows < FEW else float(np.mean(reference.noise))
    return max(LEAST, TIMES * noise)


def divergence(reference: Floats, found: Floats) -> float:
    """Mean KL divergence in nats over the last positions that both have; where one pads the vocabulary, over the tokens of both."""
    rows, tokens = (min(reference.shape[axis], found.shape[axis]) for axis in (0, 1))
    if rows == 0:
        return float("nan")
    one, other = (values[-rows:, :tokens].astype(np.float64) for values in (reference, found))
    return float(each(one, other).mean())


def each(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """KL divergence in nats of each row of log-probabilities."""
    return np.asarray((np.exp(one) * (one - np.maximum(other, -1e4))).sum(axis=1))


def departure(reference: Reference, answer: tuple[int, ...]) -> float:
    """By how many nats the reference prefers its own token where an answer first departs from its own; 0 where none does."""
    for place, (own, other) in enumerate(zip(reference.answer, answer, strict=False)):
        if own != other:
            row = reference.steps[place]
            return float(row[own] - row[other]) if 0 <= other < len(row) else float("inf")
    return 0.0


def _tokens(expected: tuple[int, ...], found: tuple[int, ...]) -> str:
    place = alike.shared(expected, found)
    shown = f"{list(expected[place : place + SHOWN])} where it reads {list(found[place : place + SHOWN])}"
    return f"other tokens from token {place} on: {shown}"
