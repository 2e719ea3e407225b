"""What a loaded language model can do, whichever engine runs it: the part of llama.cpp and transformers that measurements need."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

Message = Mapping[str, Any]
"""One turn of a conversation: `role`, `content`, and whatever else a template reads (`tool_calls`, …)."""

PARAMETERS_PER_THREAD = 50_000_000
WRITTEN_PER_THREAD = 10**9  # bytes of weights: with few tokens at a time, threads wait for one another at every layer longer than above


def useful_threads(parameters: int, most: int) -> int:
    """How many CPU threads a model of that many parameters is worth: in a small one, threads wait for each other longer than they compute.

    On two cores that other programs also use, a second thread made a model of 3.7M parameters eight times slower, in either engine.
    """
    return min(most, 1 + parameters // PARAMETERS_PER_THREAD)


def writers(size: int, works: int, threads: int) -> tuple[int, int]:
    """Of a model of so many bytes that writes so many texts' worth of sequences apart: how many do so at once, and how many threads each of them is worth.

    On two cores that other programs also used, one thread wrote 413 tokens a second with a model of 135M parameters, and two threads 122.
    """
    useful = min(threads, 1 + size // WRITTEN_PER_THREAD)
    return max(1, min(works, threads // useful)), useful


def log_softmax(logits: Floats) -> Doubles:
    """Log-probabilities in nats, float64, over the last axis."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


class Model(Protocol):
    """A causal language model with its tokenizer. Token sequences are plain integers; positions count from 0."""

    @property
    def context(self) -> int:
        """Most tokens that one sequence can hold."""
        ...

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool = True) -> list[int]:
        """Token ids of `text`; `add_special` lets the tokenizer add BOS or EOS if it does so, `parse_special` reads `<s>` and the like as tokens."""
        ...

    def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`, special tokens written out."""
        ...

    def logits(self, tokens: Sequence[int], first: int) -> Floats:
        """Logits (len(tokens) - first, vocabulary) at positions `first` and later of one sequence evaluated from scratch."""
        ...

    def continuations(self, prefix: Sequence[int], suffixes: Sequence[Sequence[int]]) -> Floats:
        """Logits (len(suffixes), vocabulary) of the token after prefix + suffix, for each suffix; the prefix is evaluated once.

        Reports suffixes that are done.
        """
        ...

    def generate(self, prompt: Sequence[int], *, max_tokens: int, stop: Collection[int]) -> list[int]:
        """Greedy continuation of `prompt`: at most `max_tokens` tokens, ending with the first one in `stop` if it comes (that token included), or where it is
        `engines.repetition.lost`.

        Reports tokens that are generated.
        """
        ...
