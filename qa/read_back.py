"""The stage that lets a model go on greedily from one question: asked of the file that was measured and of its published copy, which is to say the same.

Covered: files that arrive but do not work together, such as a tokenizer or a part that is missing, and a copy that computes something else.
Not covered: whether the answer is a good one, which greedy answers of the measurements tell.
"""

from pathlib import Path
from typing import Any

from engines import llama
from engines.model import Model
from qa import greedy

VERSION = 1  # raise when outputs change


def answer(out: Path, *, model: Path, question: str, max_tokens: int, threads: int) -> dict[str, Any]:
    """The answer in the model's own template, as text under `answer`; of a model without one, what it goes on with. Raises MeasurementError or ToolError."""
    given = greedy.answers(model, [question], max_tokens=max_tokens, threads=threads)
    return {"answer": _continued(model, question, max_tokens, threads) if given is None else given[0].text}


def _continued(model: Path, opening: str, max_tokens: int, threads: int) -> str:
    if model.is_dir():
        from engines import hf  # torch

        with hf.open_model(model, threads=threads) as engine:
            return _said(engine, opening, max_tokens)
    with llama.open_vocabulary(model) as vocabulary:
        context = min(max_tokens + len(vocabulary.tokenize(opening, add_special=True)), vocabulary.trained_context)
    with llama.open_model(model, context=context, threads=threads) as loaded:
        return _said(loaded, opening, max_tokens)


def _said(model: Model, opening: str, max_tokens: int) -> str:
    """Whole, whether a token would end it or not: a base model has no turn to end."""
    return model.detokenize(model.generate(model.tokenize(opening, add_special=True), max_tokens=max_tokens, stop=()))
