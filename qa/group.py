"""The stage that measures the divergence of a group of GGUF variants beside one pass of the 16-bit model."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from config.errors import MeasurementError, SluiceError
from engines import llama
from qa import divergence, texts

VERSION = 2  # raise when outputs change


def measure(out: Path, *, reference: Path, variants: Sequence[Path], windows: Path, context: int, threads: int) -> dict[str, Any]:
    """Write each variant's divergence to 0.json, 1.json and so on, in the order of `variants`: measurements and means by position, or the error.

    What one file says depends on its variant only, not on the others of the group, so that whatever is made of it can be kept when groups change.
    `windows` is what `qa.texts.prepare` wrote. Raises MeasurementError or ToolError when the reference cannot be evaluated.
    """
    tokens, marks, kinds = texts.load(windows, context)
    workers, each = shares(threads, len(variants))
    with ExitStack() as stack:
        original = stack.enter_context(llama.open_model(reference, context=context, threads=each))
        opened = [_opened(stack, variant, context, each) for variant in variants]
        models = [model.logits for model in opened if not isinstance(model, SluiceError)]
        scored = iter(divergence.compare_all(original.logits, models, tokens, scored=marks > 0, workers=workers))
    for position, model in enumerate(opened):
        found = model if isinstance(model, SluiceError) else next(scored)
        content = {"error": str(found)} if isinstance(found, SluiceError) else described(found, kinds, context)
        (out / f"{position}.json").write_text(json.dumps(content, indent=0), encoding="utf-8")
    return {"variants": len(variants)}


def shares(threads: int, variants: int) -> tuple[int, int]:
    """How many models to evaluate at a time, and the threads of each: models do not wait for one another, while the threads of one model do at every layer."""
    workers = min(threads, 1 + variants)
    return workers, max(1, threads // workers)


def described(scores: divergence.Scores, kinds: Sequence[str], context: int) -> dict[str, Any]:
    """What is kept of a variant's divergence, as JSON values: `measurements`, and under `positions` the means along a window of `context` tokens."""
    measured, along = divergence.measurements(scores, kinds), divergence.positions(scores, context)
    return {"measurements": [asdict(item) for item in measured], "positions": [asdict(item) for item in along]}


def load(file: Path) -> dict[str, Any]:
    """What `described` told of one variant. Raises MeasurementError with the error that prevented it."""
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if "error" in content:
        raise MeasurementError(content["error"])
    return content


def _opened(stack: ExitStack, variant: Path, context: int, threads: int) -> "llama.LlamaModel | SluiceError":
    """The variant's model, or why it cannot be loaded: the others are measured all the same."""
    try:
        return stack.enter_context(llama.open_model(variant, context=context, threads=threads))
    except SluiceError as error:
        return error
