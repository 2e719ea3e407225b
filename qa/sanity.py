"""Does the 16-bit model work at all, before anything is built from it? It must compute finite numbers and say something.

Greedy answers of small models run in circles at some prompts by themselves (Holtzman et al., arXiv 1904.09751), those of broken weights at nearly all: so a
loop is a failure only where more than half of the answers have one. A base model goes on with the prompts as openings, which it need not do without loops:
there only the same token over and over counts.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from config.progress import counted
from config.words import Measurement
from engines.repetition import repetitions
from qa import turns
from qa.generation import SHARED

if TYPE_CHECKING:
    from engines import hf

VERSION = 6  # raise when outputs change

MOST = 256  # tokens of an answer: here each takes a pass through weights in 32 bits, and what variants say at length is held against the model's own answers


def check(out: Path, *, model: Path, prompts: Sequence[str], max_tokens: int, threads: int) -> dict[str, Any]:
    """sanity.loops: prompts at which the model repeats itself; sanity.failures: prompts at which it computes values that are not finite or says nothing, and
    those with loops when they are more than half. Of each answer `max_tokens` are looked at, MOST at most.

    An answer is cut where the template ends the assistant's turn, whatever `eos_token` says: a wrong eos is no fault of the weights, and the template check
    reports it. For the same reason an answer need not end.
    """
    from engines import hf  # torch

    details: list[str] = []
    loops: list[str] = []
    broken: list[str] = []
    with hf.open_model(model, threads=threads) as engine:
        tokenizer = engine.tokenizer
        base = tokenizer.chat_template is None
        marks = set() if base else _marks(engine)
        for prompt in counted(prompts, "prompts"):
            text = prompt if base else hf.render_chat(tokenizer, [{"role": "user", "content": prompt}], add_generation_prompt=True)
            tokens = turns.prompt_tokens(engine, text, tokenizer.bos_token or "")
            if not np.isfinite(engine.logits(tokens, 0)).all():
                broken = broken or hf.not_finite(model)
                details.append(f'The model computes values that are not finite for "{prompt}"{_among(broken)}')
                continue
            answer = engine.generate(tokens, max_tokens=min(max_tokens, MOST), stop=marks)
            said = [token for token in answer if token not in marks]
            if not said:
                details.append(f'To "{prompt}" the answer is empty: ""')
            elif wrong := (_one_token(said) if base else repetitions(said)):
                loops.append(f'To "{prompt}" the answer {wrong[0]}: "{engine.detokenize(said[:40])}"')
    details += loops if len(loops) > SHARED * len(prompts) else []
    measurements = [
        Measurement(name="sanity.failures", value=len(details), unit="count", n=len(prompts), details=tuple(details)),
        Measurement(name="sanity.loops", value=len(loops), unit="count", n=len(prompts), details=tuple(loops)),
    ]
    return {"measurements": [asdict(measurement) for measurement in measurements]}


def _marks(engine: "hf.HfModel") -> set[int]:
    """The special tokens between an answer and the next question."""
    from engines import hf  # torch

    tokenizer = engine.tokenizer
    answered = turns.find(lambda messages: hf.render_chat(tokenizer, messages)).answered
    return {token for token in engine.tokenize(answered, add_special=False) if token in tokenizer.all_special_ids or token in tokenizer.added_tokens_decoder}


def _among(broken: Sequence[str]) -> str:
    """Which weights are to blame, if any are."""
    return f"; {len(broken)} of its tensors are not finite, among them {broken[0]}" if broken else ""


def _one_token(said: Sequence[int]) -> list[str]:
    """What is wrong with what a base model goes on with."""
    return [f"is one token, said {len(said)} times"] if len(said) > 1 and len(set(said)) == 1 else []
