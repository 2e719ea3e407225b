"""The reading that others are compared with: llama.cpp's of a GGUF file, through its C interface; of safetensors, of which it reads none, the next best.

16-bit folders are compared with llama.cpp's reading of the release's 16-bit GGUF, or with transformers 5 where there is none; NF4 folders with transformers
5, in which they were measured.
"""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from engines import llama
from engines.model import log_softmax
from qa.readers import running, transformers
from qa.readers.compared import each
from qa.readers.words import BITS16, GGUF, Reference, Variant

SIXTEEN = ("BF16", "F16", "F32")  # tags of GGUF files that hold the 16-bit model bit for bit
CONTEXT = 512  # tokens
BATCH = 2  # tokens that the second reading takes together


def of(variant: Variant, release: Sequence[Variant]) -> Callable[[], Reference]:
    """Of a variant among those of its release; it is made when it is first asked for. Raises what the program does that makes it."""
    if variant.form == GGUF:
        return lambda: by_llama_cpp(variant.path)
    if variant.form == BITS16 and (whole := next((other for other in release if other.tag in SIXTEEN and other.form == GGUF), None)):
        return lambda: by_llama_cpp(whole.path)
    return lambda: by_transformers(variant)


@cache
def by_llama_cpp(path: Path) -> Reference:
    """Raises ToolError when llama.cpp cannot load the file."""
    with llama.open_model(path, context=CONTEXT, threads=1) as model:
        tokens = tuple(model.tokenize(running.TEXT, add_special=True))
        logits = model.logits(tokens, first=max(0, len(tokens) - running.LAST))
        answer = tuple(model.generate(tokens, max_tokens=running.MOST, stop=()))
        steps = model.logits([*tokens, *answer], first=len(tokens) - 1)[: len(answer)]
    with llama.open_model(path, context=CONTEXT, threads=1, batch=BATCH) as model:
        again = model.logits(tokens, first=max(0, len(tokens) - running.LAST))
    return Reference(
        tokens=tokens,
        logprobs=log_softmax(logits).astype(np.float32),
        answer=answer,
        steps=log_softmax(steps).astype(np.float32),
        noise=tuple(map(float, each(log_softmax(logits), log_softmax(again)))),
        by=f"llama.cpp's reading of {path.name}",
    )


@cache
def by_transformers(variant: Variant) -> Reference:
    """Raises Refusal or Broken."""
    found = transformers.answer(variant, None)
    return Reference(
        tokens=tuple(found["ids"]),
        logprobs=running.logprobs(found["logits"], found["rows"]),
        answer=tuple(found["answer"]),
        steps=running.logprobs(found["steps"], running.MOST),
        by="transformers 5",
    )
