"""How far a variant's next-token distributions are from the 16-bit model's: KL divergence over the full vocabulary, window by window.

Follows `llama-perplexity --kl-divergence`: in a window of n tokens the positions n//2 … n-2 are scored, each for the token after it, so that every score has
at least half a window of context. Unlike there, the 16-bit model runs beside the variants, so its logits are neither stored nor rounded to 16 bits, and errors
are clustered by window, because tokens of one text are not independent.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

import numpy as np
import numpy.typing as npt

from config.errors import MeasurementError, SluiceError
from config.progress import report
from config.words import Measurement
from engines.model import Doubles, Floats
from qa.texts import Windows

Evaluate = Callable[[Sequence[int], int], Floats | Iterable[Floats]]
"""Logits (len(tokens) - first, vocabulary) of a sequence of tokens from position `first`, whole as from `engines.model.Model.logits`, or in consecutive parts
that may share memory, as from `engines.llama.LlamaModel.logits_in_parts`."""

Marks = npt.NDArray[np.bool_]

BLOCK = 1 << 17  # logits handled at a time: their float32 values and what is computed from them stay in a core's cache
BUCKETS = 16  # parts of a window at most, of which each gets its own mean
QUANTILES = {"median": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999, "max": 1.0}


@dataclass(frozen=True, kw_only=True)
class Scores:
    """One number per token, each array (windows, later half of a window); NaN where the token is not scored."""

    kld: Doubles  # KL(reference ‖ variant) in nats
    same_top: Doubles  # 1 where both find the same token likeliest
    difference: Doubles  # the largest change of any token's probability; NaN unless it was asked for
    reference_nll: Doubles  # -log p of the token that follows, in nats
    variant_nll: Doubles


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """Mean KL divergence over neighbouring positions of all windows."""

    first: int  # position in the window, counted from 0
    last: int  # included
    mean: float  # nats
    stderr: float | None  # clustered by window
    n: int  # scored tokens


@dataclass(frozen=True, kw_only=True)
class _Base:
    """The reference's side of one window, computed once for all variants: n scored rows."""

    logits: Floats  # (n, vocabulary)
    probabilities: Floats  # (n, vocabulary)
    log_sum: Doubles  # (n), log of the sum of exp(logits)
    top: npt.NDArray[np.intp]  # (n)


def compare(reference: Evaluate, variant: Evaluate, windows: Windows, *, scored: Marks | None = None, first: int | None = None) -> Scores:
    """Score one variant, with differences; the two models run at the same time. Raises MeasurementError when logits are not finite or vocabularies differ."""
    (scores,) = compare_all(reference, [variant], windows, scored=scored, first=first, workers=2, difference=True)
    if isinstance(scores, SluiceError):
        raise scores
    return scores


def compare_all(
    reference: Evaluate,
    variants: Sequence[Evaluate],
    windows: Windows,
    *,
    scored: Marks | None = None,
    first: int | None = None,
    workers: int,
    difference: bool = False,
) -> list[Scores | SluiceError]:
    """Score several variants beside one pass of the reference, `workers` models at a time; a variant that cannot be scored comes back as its error.

    `scored` (windows, context) marks the tokens to score, of which those in the first half of a window, or before `first`, are left out; without it all later
    ones count. The
    reference's logits and probabilities of two windows are in memory, or of three where there are few variants. `difference` asks for that field of the scores,
    which takes a third of the time of scoring. Raises MeasurementError when the reference
    cannot be evaluated.
    """
    first = windows.shape[1] // 2 if first is None else first
    wanted = np.ones_like(windows, dtype=bool)[:, first + 1 :] if scored is None else scored[:, first + 1 :].astype(bool)
    table = np.full((len(variants), 5, *wanted.shape), np.nan)
    failed: dict[int, tuple[int, SluiceError]] = {}  # by variant, the first window that could not be scored, whichever task came to it first
    turns = [Lock() for _ in range(1 + len(variants))]  # a model evaluates one window at a time

    def rows(evaluate: Evaluate, number: int) -> Iterator[Floats]:
        return _wanted(evaluate(windows[number].tolist(), first), wanted[number])

    def prepare(number: int) -> _Base:
        with turns[0]:
            return _base(rows(reference, number), int(wanted[number].sum()), number)

    def score(index: int, number: int, base: "Future[_Base]") -> None:
        original = base.result()
        if index in failed and failed[index][0] < number:
            return
        try:
            with turns[1 + index]:
                found = _score(original, rows(variants[index], number), windows[number, first + 1 :][wanted[number]], number, difference)
            table[index, :, number, wanted[number]] = found.T
        except SluiceError as error:
            with turns[1 + index]:
                failed[index] = min(failed.get(index, (number, error)), (number, error), key=lambda found: found[0])

    with ThreadPoolExecutor(max_workers=workers) as pool:
        try:
            _run(pool, [int(number) for number in np.flatnonzero(wanted.any(axis=1))], len(variants), workers, prepare, score)
        finally:
            pool.shutdown(cancel_futures=True)
    return [failed[index][1] if index in failed else Scores(**dict(zip(Scores.__annotations__, table[index], strict=True))) for index in range(len(variants))]


def _run(
    pool: ThreadPoolExecutor,
    numbers: Sequence[int],
    variants: int,
    workers: int,
    prepare: Callable[[int], _Base],
    score: Callable[[int, int, "Future[_Base]"], None],
) -> None:
    """Do every window's tasks. The reference is ahead by as much as keeps every worker busy: no window waits for the slowest model, and few are in memory.

    The pool starts tasks in the order in which they are submitted, so a task that waits for a reference finds it done or being done: there is no deadlock.
    """
    report(0, len(numbers), "windows")
    ahead = [pool.submit(prepare, number) for number in numbers[:1]]
    pending: deque[list[Future[None]]] = deque()
    settled = 0
    for number, following in zip(numbers, [*numbers[1:], None], strict=True):
        base = ahead.pop()
        tasks = []
        for index in range(variants):
            if index == max(0, variants - workers) and following is not None:
                ahead.append(pool.submit(prepare, following))
            tasks.append(pool.submit(score, index, number, base))
        pending.append(tasks)
        if len(pending) > 1:
            _settle(pending.popleft())
            report(settled := settled + 1, len(numbers), "windows")
    for tasks in pending:
        _settle(tasks)
        report(settled := settled + 1, len(numbers), "windows")


def _settle(tasks: Iterable["Future[None]"]) -> None:
    for task in tasks:
        task.result()


def _wanted(logits: Floats | Iterable[Floats], wanted: Marks) -> Iterator[Floats]:
    """The rows to score of a window's logits, which have one more row than `wanted`: the last position's next token is unknown.

    They come a few at a time, so that they and what is computed from them stay in a core's cache.
    """
    start = 0
    for part in [logits] if isinstance(logits, np.ndarray) else logits:
        rows = max(1, BLOCK // part.shape[1])
        for at in range(0, len(part), rows):
            marks = wanted[start + at : start + min(at + rows, len(part))]
            if marks.any():
                block = part[at : at + len(marks)]
                yield block if marks.all() else block[marks]
        start += len(part)


def _base(blocks: Iterable[Floats], count: int, number: int) -> _Base:
    """What `_wanted` gives of the reference, `count` rows in all."""
    logits = probabilities = np.empty((count, 0), dtype=np.float32)
    log_sum, top = np.empty(count), np.empty(count, dtype=np.intp)
    done = 0
    for block in blocks:
        if not done:
            logits, probabilities = (np.empty((count, block.shape[1]), dtype=np.float32) for _ in range(2))
        rows = slice(done, done := done + len(block))
        if not np.isfinite(block).all():
            raise _not_finite("16-bit model", number)
        logits[rows] = block
        top[rows] = block.argmax(axis=1)
        weights, total, log_sum[rows] = _exponentials(block, top[rows], probabilities[rows])
        weights *= 1 / total
    return _Base(logits=logits, probabilities=probabilities, log_sum=log_sum, top=top)


def _score(base: _Base, blocks: Iterable[Floats], following: npt.NDArray[np.int32], number: int, difference: bool) -> Doubles:
    """The five fields of Scores (5, n) for one window, from what `_wanted` gives of the variant, n rows in all, and the n tokens that follow.

    With logits P and Q, KL = Σ p (P - Q) + log Σ exp Q - log Σ exp P. Taking the difference of the logits first keeps float32 exact to about 1e-7 nats a token,
    where the difference of two log-probabilities of size 10 would lose ten times as much; the rounding has no preferred sign, so the mean is better still.
    """
    result = np.full((5, len(following)), np.nan)
    scratch = np.empty((0, 0), dtype=np.float32)
    done = 0
    for q in blocks:
        if q.shape[1] != base.logits.shape[1]:
            raise MeasurementError(
                f"The variant has a vocabulary of {q.shape[1]} tokens and the 16-bit model one of {base.logits.shape[1]}, so they cannot be compared."
            )
        rows = slice(done, done := done + len(q))
        if len(scratch) < len(q):
            scratch = np.empty_like(q)
        work = scratch[: len(q)]
        p, probabilities, index, token = base.logits[rows], base.probabilities[rows], np.arange(len(q)), following[rows]
        # an infinity or a NaN among the logits makes this sum one too: a probability is never negative, and no logit of the reference is infinite
        shift = np.einsum("ij,ij->i", probabilities, np.subtract(p, q, out=work))
        if not np.isfinite(shift).all():
            raise _not_finite("variant", number)
        top = q.argmax(axis=1)
        weights, total, log_sum = _exponentials(q, top, work)
        result[0, rows] = shift + (log_sum - base.log_sum[rows])
        result[1, rows] = base.top[rows] == top
        if difference:
            weights *= 1 / total
            weights -= probabilities
            result[2, rows] = np.maximum(weights.max(axis=1), -weights.min(axis=1))
        result[3, rows] = base.log_sum[rows] - p[index, token]
        result[4, rows] = log_sum - q[index, token]
    return result


def _exponentials(logits: Floats, top: npt.NDArray[np.intp], out: Floats) -> tuple[Floats, Floats, Doubles]:
    """exp(logits) (n, vocabulary) over that of the largest, at `top`, written to `out`; their sums (n, 1), and the logs of the sums of exp(logits) (n)."""
    peak = np.take_along_axis(logits, top[:, None], axis=1)
    weights = np.exp(np.subtract(logits, peak, out=out), out=out)
    total = weights.sum(axis=1, keepdims=True)
    return weights, total, peak[:, 0] + np.log(total[:, 0], dtype=np.float64)


def _not_finite(name: str, number: int) -> MeasurementError:
    return MeasurementError(f"The {name} gives logits that are not finite in evaluation window {number}, so there is no divergence to measure.")


def clustered(values: Doubles) -> tuple[float, float | None]:
    """Mean of values (windows, n) over what is not NaN, and its standard error from the spread of the windows' sums; None with a single window."""
    mean, each = influence(values)
    return mean, spread(each)


def influence(values: Doubles) -> tuple[float, Doubles]:
    """Mean of values (windows, n) over what is not NaN, and by how much each window (windows) moves it; NaN for a window without values.

    The mean is a ratio of totals over clusters of unequal size, linearised (Cochran, Sampling Techniques, chapter on ratio estimators, windows as units).
    """
    count = (~np.isnan(values)).sum(axis=1)
    sums = np.nansum(values, axis=1)
    mean = float(sums.sum() / count.sum())
    return mean, np.where(count > 0, (sums - mean * count) / count.sum(), np.nan)


def spread(each: Doubles) -> float | None:
    """The standard error of a figure from its windows' influences; None with a single window. That of a difference: from the differences of influences.

    With as many values in each window it is the standard error of the windows' means.
    """
    moved = each[~np.isnan(each)]
    return None if len(moved) < 2 else math.sqrt(len(moved) / (len(moved) - 1) * float((moved**2).sum()))


def influences(scores: Scores, texts: Sequence[str] = ()) -> dict[str, Doubles]:
    """By how much each window (windows) moves each figure of `measurements` that has an error, by its name."""
    found = _influences(scores, "")
    kinds = np.array(texts)
    for text in dict.fromkeys(texts) if len(set(texts)) > 1 else ():
        part = {name: np.where((kinds == text)[:, None], getattr(scores, name), np.nan) for name in Scores.__annotations__}
        found |= _influences(Scores(**part), f".{text}")
    return {name: each for name, (_, each) in found.items()}


def _influences(scores: Scores, text: str) -> dict[str, tuple[float, Doubles]]:
    """The figures that have an error, and the windows' influences on them."""
    log_ratio, on_ratio = influence(scores.variant_nll - scores.reference_nll)
    square, on_square = influence((np.exp(-scores.variant_nll) - np.exp(-scores.reference_nll)) ** 2)
    rms, ratio = math.sqrt(square), math.exp(log_ratio)
    return {
        f"kld{text}.mean": influence(scores.kld),
        f"same_top{text}": influence(scores.same_top),
        # what moves a root is what moves the square, over twice the root; without any change nothing does
        f"dp.rms{text}": (rms, on_square / (2 * rms) if rms else on_square),
        f"ppl.ratio{text}": (ratio, ratio * on_ratio),
    }


def measurements(scores: Scores, texts: Sequence[str] = ()) -> list[Measurement]:
    """kld.mean, .median, .p90, .p99, .p999, .max in nats, same_top as a share, dp.rms as a share, ppl.ratio (variant / reference), over all scored tokens.

    `texts` names each window's text, such as "chat" or "plain". When there are several, the figures of each follow as kld.TEXT.mean, same_top.TEXT and so on.
    dp.rms is the root of the mean squared change of the probability of the token that follows, in the text, as llama-perplexity's "RMS Δp".
    """
    found = _measurements(scores, "")
    kinds = np.array(texts)
    for text in dict.fromkeys(texts) if len(set(texts)) > 1 else ():
        part = {name: getattr(scores, name)[kinds == text] for name in Scores.__annotations__}
        found += _measurements(Scores(**part), f".{text}")
    return found


def positions(scores: Scores, context: int, *, buckets: int = BUCKETS) -> list[Bucket]:
    """The mean KL divergence by position in a window of `context` tokens, in at most `buckets` equal parts; those without a scored token are left out.

    The means weighted by `n` give kld.mean.
    """
    first, columns = context // 2, scores.kld.shape[1]
    edges = np.unique(np.linspace(0, columns, min(buckets, columns) + 1).round().astype(int))
    found = []
    for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        part = scores.kld[:, start:end]
        if n := int((~np.isnan(part)).sum()):
            mean, error = clustered(part)
            found.append(Bucket(first=first + start, last=first + end - 1, mean=mean, stderr=error, n=n))
    return found


def _measurements(scores: Scores, text: str) -> list[Measurement]:
    kld = scores.kld[~np.isnan(scores.kld)]
    tokens = int(kld.size)
    quantiles = zip(QUANTILES, np.quantile(kld, list(QUANTILES.values())), strict=True)
    units = {f"kld{text}.mean": "nats", f"same_top{text}": "share", f"dp.rms{text}": "share", f"ppl.ratio{text}": "ratio"}
    mean, *others = (
        Measurement(name=name, value=value, unit=units[name], stderr=spread(each), n=tokens) for name, (value, each) in _influences(scores, text).items()
    )
    return [mean, *(Measurement(name=f"kld{text}.{name}", value=float(value), unit="nats", n=tokens) for name, value in quantiles), *others]
