"""The stages that measure the divergence of variants on a part of the evaluation text, and the figures of all parts together.

The 16-bit model is evaluated once for a group of GGUF variants. The scores of every token are kept, so that parts which are measured later, because the first
did not decide a gate, give together exactly what measuring all at once gives.
"""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from config.errors import SluiceError
from config.words import Measurement
from engines import llama
from qa import divergence, texts

NAMES = ("kld", "same_top", "dp", "ppl")  # first words of the measurements

VERSION = 5  # raise when outputs change
BATCH = 128  # tokens that a model evaluates at a time: the logits of more take memory for each model, and those of less time


@dataclass(frozen=True, kw_only=True)
class Part:
    """One variant's scores of the windows that `qa.texts.part` names."""

    file: Path
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """A variant's divergence over all parts that were measured."""

    measurements: list[Measurement]
    influences: Mapping[str, list[float | None]]  # see `qa.divergence.influences`; by window, None where nothing of it is scored or it was not measured
    windows: str  # digest of the tokens of all windows that there are, measured or not
    positions: list[divergence.Bucket]  # means along a window


def measure(
    out: Path, *, reference: Path, variants: Sequence[Path], windows: Path, context: int, threads: int, start: int = 0, end: int | None = None
) -> dict[str, Any]:
    """Write each GGUF variant's scores to 0.npy, 1.npy and so on, in the order of `variants`, for the windows of `qa.texts.part`; all windows without `end`.

    Under `errors` the result says by position why a variant has none. What is found about a variant does not depend on the others of the group, so that
    whatever is made of it can be kept when groups change. `windows` is what `qa.texts.prepare` wrote. Raises MeasurementError or ToolError when the reference
    cannot be evaluated.
    """
    tokens, marks = _part(windows, context, start, end)
    workers, each = shares(threads, len(variants))
    with ExitStack() as stack:
        original = stack.enter_context(llama.open_model(reference, context=context, threads=each, batch=BATCH))
        opened = [_opened(stack, variant, context, each) for variant in variants]
        models = [model.logits_in_parts for model in opened if not isinstance(model, SluiceError)]
        scored = iter(divergence.compare_all(original.logits_in_parts, models, tokens, scored=marks > 0, workers=workers))
    errors = {}
    for position, model in enumerate(opened):
        found = model if isinstance(model, SluiceError) else next(scored)
        if isinstance(found, SluiceError):
            errors[str(position)] = str(found)
        else:
            _write(out / f"{position}.npy", found)
    return {"variants": len(variants), "errors": errors}


def measure_transformers(
    out: Path, *, reference: Path, variant: Path, windows: Path, context: int, threads: int, start: int = 0, end: int | None = None
) -> dict[str, Any]:
    """The same for one folder of safetensors against the 16-bit folder, in 0.npy. Raises MeasurementError."""
    from engines import hf  # torch

    tokens, marks = _part(windows, context, start, end)
    with ExitStack() as stack:
        original = stack.enter_context(hf.open_model(reference, threads=threads))
        model = original if variant == reference else stack.enter_context(hf.open_model(variant, threads=threads))
        _write(out / "0.npy", divergence.compare(original.logits, model.logits, tokens, scored=marks > 0))
    return {"variants": 1, "errors": {}}


def pool(parts: Sequence[Part], windows: Path, context: int) -> Pooled:
    """What all parts of one variant say together."""
    tokens, _, kinds = texts.load(windows, context)
    table = np.full((len(divergence.Scores.__annotations__), len(tokens), context - context // 2 - 1), np.nan)
    for item in parts:
        table[:, texts.part(kinds, item.start, item.end)] = np.load(item.file, allow_pickle=False)
    scores = divergence.Scores(**dict(zip(divergence.Scores.__annotations__, table, strict=True)))
    return Pooled(
        measurements=divergence.measurements(scores, kinds),
        influences={name: [None if np.isnan(value) else float(value) for value in each] for name, each in divergence.influences(scores, kinds).items()},
        windows=hashlib.sha256(tokens.tobytes()).hexdigest(),
        positions=divergence.positions(scores, context),
    )


def shares(threads: int, variants: int) -> tuple[int, int]:
    """How many models to evaluate at a time, and the threads of each: models do not wait for one another, while the threads of one model do at every layer."""
    workers = min(threads, 1 + variants)
    return workers, max(1, threads // workers)


def _part(windows: Path, context: int, start: int, end: int | None) -> tuple[texts.Windows, texts.Marks]:
    tokens, marks, kinds = texts.load(windows, context)
    chosen = texts.part(kinds, start, len(tokens) if end is None else end)
    return tokens[chosen], marks[chosen]


def _write(file: Path, scores: divergence.Scores) -> None:
    np.save(file, np.stack([getattr(scores, name) for name in divergence.Scores.__annotations__]))


def _opened(stack: ExitStack, variant: Path, context: int, threads: int) -> "llama.LlamaModel | SluiceError":
    """The variant's model, or why it cannot be loaded: the others are measured all the same."""
    try:
        return stack.enter_context(llama.open_model(variant, context=context, threads=threads, batch=BATCH))
    except SluiceError as error:
        return error
