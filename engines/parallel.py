"""Writes with a GGUF model in many sequences at a time: sampled continuations of prompts in one llama.cpp context, each with a seed of its own."""

import math
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import llama_cpp.llama_cpp as c
import numpy as np

from engines import llama
from engines.llama import LlamaModel
from engines.model import writers

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


def write(works: Sequence[Work], writers: Sequence[LlamaModel], *, sampling: Sampling, stop: Collection[int]) -> None:
    """Continue the prompts of each work until there is none left and every sequence has ended; as many works at once as there are writers, each in a thread.

    The models must be open `apart`. A prompt and its answer together must fit into a sequence's share of the memory. Works are asked and told in the caller's
    thread alone. A work has one writer to itself, so the same jobs in the same order give the same text on the same machine, whatever else is written
    meanwhile; which sequences run beside one another can change the last bits of a logit, and with them a token. Raises MeasurementError.
    """
    waiting, running = deque(works), dict[Future[Mapping[int, Written]], _Desk]()
    with ExitStack() as stack, ThreadPoolExecutor(len(writers)) as pool:  # ctypes lets go of the interpreter while llama.cpp computes

        def begin(model: LlamaModel) -> None:
            """Have the next work written that there is."""
            while waiting:
                desk = _Desk(model=model, work=waiting.popleft(), sampling=sampling, stop=stop)
                stack.callback(desk.clear)
                if desk.occupied():
                    running[pool.submit(desk.step)] = desk
                    return

        for model in writers:
            begin(model)
        while running:
            for ended in wait(running, return_when=FIRST_COMPLETED).done:
                desk = running.pop(ended)
                desk.tell(ended.result())
                if desk.occupied():
                    running[pool.submit(desk.step)] = desk
                else:
                    begin(desk.model)


@contextmanager
def open_writers(path: Path, *, works: int, sequences: int, length: int, threads: int) -> Iterator[Sequence[LlamaModel]]:
    """A GGUF model, up to `works` times as far as one does not keep all threads busy, while the block runs. Each has a memory of its own, and shares weights.

    Each writes `sequences` texts of at most `length` tokens at a time. Raises ToolError when it cannot be loaded.
    """
    together, useful = writers(path.stat().st_size if path.exists() else 0, works, threads)
    with ExitStack() as stack:
        opened = (llama.open_model(path, context=sequences * length, threads=useful, sequences=sequences, apart=True) for _ in range(together))
        yield [stack.enter_context(model) for model in opened]


@dataclass(kw_only=True)
class _Desk:
    """A model with the work that it writes, and its sequences."""

    model: LlamaModel
    work: Work
    sampling: Sampling
    stop: Collection[int]
    active: dict[int, _Active] = field(default_factory=dict)

    def occupied(self) -> bool:
        """Give free sequences something to do; whether any has."""
        for slot in range(self.model.sequences):
            if slot not in self.active and (job := self.work.following()) is not None:
                self.active[slot] = _Active(job=job, sampler=_sampler(self.model, self.sampling, job.seed), feed=list(job.prompt))
        return bool(self.active)

    def step(self) -> Mapping[int, Written]:
        """Evaluate one batch, a token of each sequence that is writing and as much of new prompts as there is room for, and draw tokens; what has ended."""
        entries: list[tuple[int, int, int, bool]] = []
        for slot, sequence in sorted(self.active.items(), key=lambda item: (len(item[1].feed), item[0])):
            taken = sequence.feed[: self.model.batch.size - len(entries)]
            last = len(taken) == len(sequence.feed)
            sequence.row = len(entries) + len(taken) - 1 if taken and last else -1
            entries += [(token, sequence.position + i, slot, last and i == len(taken) - 1) for i, token in enumerate(taken)]
            sequence.feed = sequence.feed[len(taken) :]
            sequence.position += len(taken)
        self.model.evaluate(np.array(entries, dtype=np.int32))
        return {slot: written for slot, sequence in sorted(self.active.items()) if (written := self._sampled(sequence)) is not None}

    def _sampled(self, sequence: _Active) -> Written | None:
        """Draw the next token where there are logits; what was written, once that is all."""
        if sequence.row < 0:
            return None
        token = int(c.llama_sampler_sample(sequence.sampler, self.model.pointer, sequence.row))
        if token in self.stop:
            return Written(tokens=sequence.tokens, end=token)
        sequence.tokens.append(token)
        if len(sequence.tokens) >= sequence.job.most:
            return Written(tokens=sequence.tokens, end=None)
        sequence.feed = [token]
        return None

    def tell(self, ended: Mapping[int, Written]) -> None:
        """Hand over what has ended in a step, or is not worth going on with."""
        self.work.drawn(sum(sequence.row >= 0 for sequence in self.active.values()))
        for slot, sequence in sorted(self.active.items()):
            looked_at = sequence.row >= 0 and sequence.tokens and len(sequence.tokens) % LOOKED_AT == 0
            written = ended.get(slot)
            if written is None and looked_at and self.work.spoiled(sequence.tokens):
                written = Written(tokens=sequence.tokens, end=None)
            if written is not None:
                self._end(slot)
                self.work.done(sequence.job, written)

    def clear(self) -> None:
        """Leave all that is not written to its end."""
        for slot in list(self.active):
            self._end(slot)

    def _end(self, slot: int) -> None:
        c.llama_sampler_free(self.active.pop(slot).sampler)
        self.model.forget(slot)


def _sampler(model: LlamaModel, sampling: Sampling, seed: int) -> Any:
    """In llama.cpp's own order: penalties, top-k, top-p, min-p, temperature. Ids of no token are left out: of those the text would say nothing."""
    chain = c.llama_sampler_chain_init(c.llama_sampler_chain_default_params())
    unused = model.vocabulary.unused
    steps: list[Any] = [_never(unused, model.vocabulary.size)] if unused else []
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


def _never(tokens: Collection[int], size: int) -> Any:
    """A step that leaves tokens of a vocabulary of that size out."""
    biases = (c.llama_logit_bias * len(tokens))(*(c.llama_logit_bias(token=token, bias=-math.inf) for token in sorted(tokens)))
    return c.llama_sampler_init_logit_bias(size, len(tokens), biases)
