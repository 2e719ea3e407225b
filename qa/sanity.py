"""Does the 16-bit model work at all, before anything is built from it? It must compute finite numbers and say something."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from config.progress import counted
from config.words import Measurement
from engines.repetition import repetitions
from qa import turns

VERSION = 2  # raise when outputs change


def check(out: Path, *, model: Path, prompts: Sequence[str], max_tokens: int, threads: int) -> dict[str, Any]:
    """sanity.failures: prompts at which the model computes values that are not finite, says nothing, or repeats itself.

    An answer is cut where the template ends the assistant's turn, whatever `eos_token` says: a wrong eos is no fault of the weights, and the template check
    reports it. For the same reason an answer need not end.
    """
    from engines import hf  # torch

    details = []
    with hf.open_model(model, threads=threads) as engine:
        tokenizer = engine.tokenizer
        answered = turns.find(lambda messages: hf.render_chat(tokenizer, messages)).answered
        marks = {
            token for token in engine.tokenize(answered, add_special=False) if token in tokenizer.all_special_ids or token in tokenizer.added_tokens_decoder
        }
        for prompt in counted(prompts, "prompts"):
            text = hf.render_chat(tokenizer, [{"role": "user", "content": prompt}], add_generation_prompt=True)
            tokens = turns.prompt_tokens(engine, text, tokenizer.bos_token or "")
            if not np.isfinite(engine.logits(tokens, 0)).all():
                details.append(f'The model computes values that are not finite for "{prompt}"')
                continue
            answer = engine.generate(tokens, max_tokens=max_tokens, stop=marks)
            said = [token for token in answer if token not in marks]
            if wrong := repetitions(said) or ([] if said else ["is empty"]):
                details.append(f'To "{prompt}" the answer {wrong[0]}: "{engine.detokenize(said[:40])}"')
    return {"measurements": [asdict(Measurement(name="sanity.failures", value=len(details), unit="count", n=len(prompts), details=tuple(details)))]}
