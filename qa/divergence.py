"""How far a variant's next-token distributions are from the 16-bit model's: KL divergence over the full vocabulary, window by window.

Follows `llama-perplexity --kl-divergence`: in a window of n tokens the positions n//2 … n-2 are scored, each for the token after it, so that every score has
at least half a window of context. Unlike there, the 16-bit model runs beside the variant, so its logits are neither stored nor rounded to 16 bits, and errors
are clustered by window, because tokens of one text are not independent.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from config.errors import MeasurementError
from config.words import Measurement
from engines.model import Floats
from qa.texts import Windows

Evaluate = Callable[[Sequence[int], int], Floats]
"""Logits (len(tokens) - first, vocabulary) of a sequence of tokens from position `first`: `engines.model.Model.logits`."""

Doubles = npt.NDArray[np.float64]
ROWS = 64  # positions handled at a time: bounds memory when the vocabulary is large


@dataclass(frozen=True, kw_only=True)
class Scores:
    """One number per scored token, each array (windows, scored tokens of a window)."""

    kld: Doubles  # KL(reference ‖ variant) in nats
    same_top: Doubles  # 1 where both find the same token likeliest
    difference: Doubles  # the largest change of any token's probability
    reference_nll: Doubles  # -log p of the token that follows, in nats
    variant_nll: Doubles


def compare(reference: Evaluate, variant: Evaluate, windows: Windows) -> Scores:
    """Score all windows; the two models run at the same time, one window each. Raises MeasurementError when logits are not finite."""
    first = windows.shape[1] // 2
    scores = []
    with ThreadPoolExecutor(max_workers=2) as pool:
        for number, window in enumerate(windows):
            tokens = [int(token) for token in window]
            pending = [pool.submit(evaluate, tokens, first) for evaluate in (reference, variant)]
            p, q = (future.result()[:-1] for future in pending)  # the last position's next token is unknown
            if p.shape != q.shape:
                raise MeasurementError(
                    f"The variant has a vocabulary of {q.shape[1]} tokens and the 16-bit model one of {p.shape[1]}, so they cannot be compared."
                )
            for name, logits in (("16-bit model", p), ("variant", q)):
                if not np.isfinite(logits).all():
                    raise MeasurementError(f"The {name} gives logits that are not finite in evaluation window {number}, so there is no divergence to measure.")
            scores.append(_score(p, q, window[first + 1 :]))
    kld, same_top, difference, reference_nll, variant_nll = np.stack(scores, axis=1)
    return Scores(kld=kld, same_top=same_top, difference=difference, reference_nll=reference_nll, variant_nll=variant_nll)


def _score(p: Floats, q: Floats, following: npt.NDArray[np.int32]) -> Doubles:
    """The five fields of Scores (5, n) for one window, from logits (n, vocabulary) of both models and the n tokens that follow."""
    parts = []
    for start in range(0, len(p), ROWS):
        rows = slice(start, start + ROWS)
        log_p, log_q, token = log_softmax(p[rows]), log_softmax(q[rows]), following[rows]
        index = np.arange(len(token))
        probability = np.exp(log_p)
        kld = (probability * (log_p - log_q)).sum(axis=1)
        same_top = p[rows].argmax(axis=1) == q[rows].argmax(axis=1)
        difference = np.abs(probability - np.exp(log_q)).max(axis=1)
        parts.append(np.stack([kld, same_top, difference, -log_p[index, token], -log_q[index, token]]))
    return np.concatenate(parts, axis=1)


def log_softmax(logits: Floats) -> Doubles:
    """Log-probabilities in nats, float64, over the last axis."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def clustered(values: Doubles) -> tuple[float, float | None]:
    """Mean of values (windows, n), and its standard error from the spread of the windows' means; None with a single window."""
    means = values.mean(axis=1)
    return float(means.mean()), float(means.std(ddof=1) / math.sqrt(len(means))) if len(means) > 1 else None


def perplexities(scores: Scores) -> tuple[float, float]:
    """Perplexity of the reference and of the variant over the scored tokens."""
    return math.exp(scores.reference_nll.mean()), math.exp(scores.variant_nll.mean())


def measurements(scores: Scores) -> list[Measurement]:
    """kld.mean, .median, .p99, .p999, .max in nats, same_top as a share, ppl.ratio (variant / reference)."""
    tokens = int(scores.kld.size)
    mean, error = clustered(scores.kld)
    share, share_error = clustered(scores.same_top)
    log_ratio, log_error = clustered(scores.variant_nll - scores.reference_nll)
    ratio = math.exp(log_ratio)
    quantiles = zip(("median", "p99", "p999", "max"), np.quantile(scores.kld, (0.5, 0.99, 0.999, 1.0)), strict=True)
    return [
        Measurement(name="kld.mean", value=mean, unit="nats", stderr=error, n=tokens),
        *(Measurement(name=f"kld.{name}", value=float(value), unit="nats", n=tokens) for name, value in quantiles),
        Measurement(name="same_top", value=share, unit="share", stderr=share_error, n=tokens),
        Measurement(name="ppl.ratio", value=ratio, unit="ratio", stderr=None if log_error is None else ratio * log_error, n=tokens),
    ]
