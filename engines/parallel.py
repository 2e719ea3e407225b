"""Writes with a GGUF model in many sequences at a time: sampled continuations of prompts in one llama.cpp context, each with a seed of its own."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import llama_cpp.llama_cpp as c
import numpy as np

from engines import llama
from engines.llama import LlamaModel

BYTES_PER_THREAD = 10**9  # of weights: with few tokens at a time, threads wait for one another at every layer longer than `engines.model` reckons with
LOOKED_AT = 32  # tokens between two looks at what is being written
PENALIZED = 64  # tokens that a repetition penalty looks back, llama.cpp's own number


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is drawn. What is left out changes nothing."""

    temperature: float = 1.0  # 0: always the likeliest
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """A prompt to go on with."""

    prompt: Sequence[int]
    most: int  # tokens of the answer
    seed: int
    of: object = None  # whose it is: handed back with what was written


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was written after a prompt."""

    tokens: Sequence[int]  # without the one that ended it
    end: int | None  # the token of `stop` that ended it; None where it was cut off


@dataclass(kw_only=True)
class _Active:
    """A sequence at work."""

    job: Job
    sampler: Any  # llama_sampler pointer
    feed: list[int]  # tokens that are not evaluated yet
    position: int = 0  # of the next one
    row: int = -1  # where the last batch has its logits; -1: nowhere
    tokens: list[int] = field(default_factory=list)


class Work(Protocol):
    """What there is to write."""

    def following(self) -> Job | None:
        """The next prompt; None when there is none, which is asked again when a sequence has ended."""
        ...

    def done(self, job: Job, written: Written) -> None:
        """Take what was written."""
        ...

    def drawn(self, tokens: int) -> None:
        """Hear that so many more tokens were written."""
        ...

    def spoiled(self, tokens: Sequence[int]) -> bool:
        """Whether what was written so far is not worth going on with."""
        ...


def write(model: LlamaModel, work: Work, *, sampling: Sampling, stop: Collection[int]) -> None:
    """Continue prompts until there is none left and every sequence has ended.

    The model must be open `apart`. A prompt and its answer together must fit into a sequence's share of the memory. The same jobs in the same order give the
    same text on the same machine; which others run beside it can change the last bits of a logit, and with them a token. Raises MeasurementError.
    """
    active: dict[int, _Active] = {}
    try:
        while True:
            for slot in range(model.sequences):
                if slot not in active and (job := work.following()) is not None:
                    active[slot] = _Active(job=job, sampler=_sampler(model, sampling, job.seed), feed=list(job.prompt))
            if not active:
                return
            _evaluate(model, active)
            work.drawn(sum(sequence.row >= 0 for sequence in active.values()))
            for slot, sequence in sorted(active.items()):
                if (written := _sampled(model, work, sequence, stop)) is not None:
                    _end(model, active, slot)
                    work.done(sequence.job, written)
    finally:
        for slot in list(active):
            _end(model, active, slot)


@contextmanager
def open_writer(path: Path, *, sequences: int, length: int, threads: int) -> Iterator[LlamaModel]:
    """A GGUF model that writes `sequences` texts of at most `length` tokens at a time while the block runs. Raises ToolError when it cannot be loaded.

    On two cores that other programs also used, one thread wrote 413 tokens a second with a model of 135M parameters, and two threads 122.
    """
    useful = min(threads, 1 + path.stat().st_size // BYTES_PER_THREAD) if path.exists() else threads
    with llama.open_model(path, context=sequences * length, threads=useful, sequences=sequences, apart=True) as model:
        yield model


def _evaluate(model: LlamaModel, active: dict[int, _Active]) -> None:
    """One batch: a token of each sequence that is writing, and as much of new prompts as there is room for."""
    entries: list[tuple[int, int, int, bool]] = []
    for slot, sequence in sorted(active.items(), key=lambda item: (len(item[1].feed), item[0])):
        taken = sequence.feed[: model.batch.size - len(entries)]
        last = len(taken) == len(sequence.feed)
        sequence.row = len(entries) + len(taken) - 1 if taken and last else -1
        entries += [(token, sequence.position + i, slot, last and i == len(taken) - 1) for i, token in enumerate(taken)]
        sequence.feed = sequence.feed[len(taken) :]
        sequence.position += len(taken)
    model.evaluate(np.array(entries, dtype=np.int32))


def _sampled(model: LlamaModel, work: Work, sequence: _Active, stop: Collection[int]) -> Written | None:
    """Draw the next token where there are logits; what was written, once that is all."""
    if sequence.row < 0:
        return None
    token = int(c.llama_sampler_sample(sequence.sampler, model.pointer, sequence.row))
    if token in stop:
        return Written(tokens=sequence.tokens, end=token)
    sequence.tokens.append(token)
    written = len(sequence.tokens)
    if written >= sequence.job.most or (written % LOOKED_AT == 0 and work.spoiled(sequence.tokens)):
        return Written(tokens=sequence.tokens, end=None)
    sequence.feed = [token]
    return None


def _sampler(model: LlamaModel, sampling: Sampling, seed: int) -> Any:
    """In llama.cpp's own order: penalties, top-k, top-p, min-p, temperature."""
    chain = c.llama_sampler_chain_init(c.llama_sampler_chain_default_params())
    steps: list[Any] = []
    if sampling.repetition_penalty != 1.0:
        steps.append(c.llama_sampler_init_penalties(model.vocabulary.size, PENALIZED, sampling.repetition_penalty, 0.0, 0.0))
    if sampling.temperature <= 0:
        steps.append(c.llama_sampler_init_greedy())
    else:
        steps += [c.llama_sampler_init_top_k(sampling.top_k)] if sampling.top_k > 0 else []
        steps += [c.llama_sampler_init_top_p(sampling.top_p, 1)] if sampling.top_p < 1 else []
        steps += [c.llama_sampler_init_min_p(sampling.min_p, 1)] if sampling.min_p > 0 else []
        steps += [c.llama_sampler_init_temp(sampling.temperature), c.llama_sampler_init_dist(seed % 2**32)]
    for step in steps:
        c.llama_sampler_chain_add(chain, step)
    return chain


def _end(model: LlamaModel, active: dict[int, _Active], slot: int) -> None:
    c.llama_sampler_free(active.pop(slot).sampler)
    model.forget(slot)
