import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from config.errors import MeasurementError
from engines import llama
from engines.model import log_softmax
from qa import divergence, texts
from tests.qa.conftest import DATA, Quantize, Release
from tests.reference_tool import llama_perplexity

VOCABULARY = 50


def random_model(seed: int, noise: float = 0.0) -> divergence.Evaluate:
    """Logits that depend on the seed, the window's first token and the position; `noise` is added on top."""

    def evaluate(tokens: Sequence[int], first: int) -> np.ndarray:
        base = np.random.default_rng(tokens[0]).normal(size=(len(tokens), VOCABULARY)) * 3
        extra = np.random.default_rng([seed, tokens[0]]).normal(size=(len(tokens), VOCABULARY)) * noise
        return (base + extra).astype(np.float32)[first:]

    return evaluate


@pytest.fixture
def windows() -> np.ndarray:
    return np.random.default_rng(0).integers(0, VOCABULARY, (6, 16)).astype(np.int32)


def test_agrees_with_the_definition(windows: np.ndarray) -> None:
    scores = divergence.compare(random_model(1), random_model(2, noise=1), windows)
    assert scores.kld.shape == (6, 16 - 16 // 2 - 1)
    tokens = windows[3].tolist()
    for i, position in enumerate(range(8, 15)):
        p, q = (np.exp(logits := model(tokens, 0)[position].astype(np.float64)) / np.exp(logits).sum() for model in (random_model(1), random_model(2, noise=1)))
        assert scores.kld[3, i] == pytest.approx((p * np.log(p / q)).sum(), rel=1e-5, abs=3e-7)
        assert scores.difference[3, i] == pytest.approx(np.abs(p - q).max(), rel=1e-5)
        assert scores.same_top[3, i] == (p.argmax() == q.argmax())
        assert scores.reference_nll[3, i] == pytest.approx(-math.log(p[tokens[position + 1]]), rel=1e-6)
        assert scores.variant_nll[3, i] == pytest.approx(-math.log(q[tokens[position + 1]]), rel=1e-6)


def test_the_same_model_does_not_diverge(windows: np.ndarray) -> None:
    measured = {m.name: m for m in divergence.measurements(divergence.compare(random_model(1), random_model(1), windows))}
    assert {name: m.value for name, m in measured.items()} == {
        "kld.mean": 0, "kld.median": 0, "kld.p90": 0, "kld.p99": 0, "kld.p999": 0, "kld.max": 0, "same_top": 1, "dp.rms": 0, "ppl.ratio": 1,
    }  # fmt: skip
    assert measured["kld.mean"].n == 6 * 7


def test_more_noise_is_more_divergence(windows: np.ndarray) -> None:
    means = [divergence.compare(random_model(1), random_model(2, noise=noise), windows).kld.mean() for noise in (0.01, 0.1, 1)]
    assert means == sorted(means)


@pytest.mark.parametrize("buckets", [1, 3, 7, 100])
def test_means_by_position_pool_to_the_mean(windows: np.ndarray, buckets: int) -> None:
    marks = np.random.default_rng(1).random(windows.shape) < 0.6
    marks[:, 12] = False  # a position that is never scored
    scores = divergence.compare(random_model(1), random_model(2, noise=1), windows, scored=marks)
    found = divergence.positions(scores, 16, buckets=buckets)
    assert len(found) == min(buckets, 6)
    measured = {m.name: m for m in divergence.measurements(scores)}
    assert sum(part.mean * part.n for part in found) / sum(part.n for part in found) == pytest.approx(measured["kld.mean"].value)
    assert sum(part.n for part in found) == measured["kld.mean"].n
    positions = [position for part in found for position in range(part.first, part.last + 1)]
    assert positions == [position for position in range(8, 15) if buckets < 7 or position != 11]  # 11 predicts the token at 12
    for part in found:
        assert part.mean == pytest.approx(np.nanmean(scores.kld[:, part.first - 8 : part.last - 7]))
        assert part.stderr == divergence.clustered(scores.kld[:, part.first - 8 : part.last - 7])[1]


def test_the_error_is_clustered_by_window() -> None:
    values = np.repeat([[1.0], [2.0], [3.0], [6.0]], 100, axis=1)  # no spread inside a window
    mean, error = divergence.clustered(values)
    assert mean == 3.0
    assert error == pytest.approx(np.std([1, 2, 3, 6], ddof=1) / 2)  # and not twenty-fold smaller, as for 400 independent tokens
    assert divergence.clustered(values[:1]) == (1.0, None)


def test_the_error_weighs_windows_by_their_scored_tokens() -> None:
    values = np.array([[1.0, 1.0, 1.0, 1.0], [3.0, np.nan, np.nan, np.nan], [np.nan] * 4])
    mean, error = divergence.clustered(values)
    assert mean == pytest.approx(7 / 5)
    assert error == pytest.approx(math.sqrt(2 * ((4 - 4 * 1.4) ** 2 + (3 - 1.4) ** 2)) / 5)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_several_variants_are_each_compared_as_if_alone(windows: np.ndarray, workers: int) -> None:
    passes = []

    def reference(tokens: Sequence[int], first: int) -> np.ndarray:
        passes.append(tokens)
        return random_model(1)(tokens, first)

    variants = [random_model(2, noise=noise) for noise in (0.01, 0.1, 1)]
    together = divergence.compare_all(reference, variants, windows, workers=workers)
    assert len(passes) == len(windows)
    for scores, variant in zip(together, variants, strict=True):
        np.testing.assert_array_equal(scores.kld, divergence.compare(random_model(1), variant, windows).kld)


def test_a_variant_that_fails_costs_the_others_nothing(windows: np.ndarray) -> None:
    def broken(tokens: Sequence[int], first: int) -> np.ndarray:
        raise MeasurementError("It fell over.")

    good, bad, other = divergence.compare_all(random_model(1), [random_model(2, noise=1), broken, random_model(1)], windows, workers=2)
    assert isinstance(bad, MeasurementError)
    assert good.kld.mean() > other.kld.mean() == 0


def test_only_marked_tokens_are_scored(windows: np.ndarray) -> None:
    scored = np.random.default_rng(1).random(windows.shape) < 0.4
    scored[4] = False
    whole = divergence.compare(random_model(1), random_model(2, noise=1), windows)
    part = divergence.compare(random_model(1), random_model(2, noise=1), windows, scored=scored)
    np.testing.assert_allclose(part.kld, np.where(scored[:, 9:], whole.kld, np.nan), rtol=1e-6)
    kinds = ["chat"] * 3 + ["plain"] * 3
    found = {m.name: m for m in divergence.measurements(part, kinds)}
    assert found["kld.mean"].n == scored[:, 9:].sum() == found["kld.chat.mean"].n + found["kld.plain.mean"].n
    pooled = sum(found[f"kld.{kind}.mean"].value * found[f"kld.{kind}.mean"].n for kind in ("chat", "plain"))
    assert found["kld.mean"].value == pytest.approx(pooled / found["kld.mean"].n)
    assert {"same_top.chat", "dp.rms.plain", "ppl.ratio.chat", "kld.plain.p999"} < found.keys()
    assert {m.name for m in divergence.measurements(part, ["chat"] * 6)} == {m.name for m in divergence.measurements(part)}


@pytest.mark.parametrize("block", [1, 3 * VOCABULARY])
def test_logits_in_parts_that_share_memory_score_as_the_whole(windows: np.ndarray, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(divergence, "BLOCK", block)
    buffer = np.empty((5, VOCABULARY), dtype=np.float32)

    def in_parts(model: divergence.Evaluate) -> divergence.Evaluate:
        def evaluate(tokens: Sequence[int], first: int) -> Iterator[np.ndarray]:
            whole = model(tokens, first)
            for start in range(0, len(whole), len(buffer)):
                part = buffer[: len(whole) - start]
                part[:] = whole[start : start + len(part)]
                yield part
                buffer[:] = np.nan

        return evaluate

    marks = np.random.default_rng(1).random(windows.shape) < 0.6
    for scored in (None, marks):
        whole, parts = (
            divergence.compare_all(way(random_model(1)), [way(random_model(2, noise=1))], windows, scored=scored, workers=1)[0]
            for way in (lambda model: model, in_parts)
        )
        for name in divergence.Scores.__annotations__:
            np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))


def test_single_precision_is_enough_for_a_variant_that_hardly_differs() -> None:
    """A vocabulary and divergence as a real 8-bit variant has them: the mean is right to a thousandth, each token to 1e-6 nats."""
    generator = np.random.default_rng(0)
    p = (generator.normal(size=(200, 32_000)) * 4 + 20).astype(np.float32)
    q = p + (generator.normal(size=p.shape) * 0.02).astype(np.float32)
    tokens = np.zeros((1, 402), dtype=np.int32)
    scores = divergence.compare(lambda _tokens, _first: np.vstack([p, p[:1]]), lambda _tokens, _first: np.vstack([q, q[:1]]), tokens)
    log_p, log_q = log_softmax(p), log_softmax(q)
    exact = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
    assert exact.mean() < 3e-4
    assert scores.kld.mean() == pytest.approx(exact.mean(), rel=1e-3)
    np.testing.assert_allclose(scores.kld[0], exact, atol=1e-6)


def test_large_logits_do_not_overflow() -> None:
    assert log_softmax(np.array([[1e4, -1e4, 1e4]], dtype=np.float32)) == pytest.approx(np.array([[-math.log(2), -2e4 - math.log(2), -math.log(2)]]))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("which", ["16-bit model", "variant"])
def test_logits_that_are_not_finite_are_an_error(windows: np.ndarray, value: float, which: str) -> None:
    def broken(tokens: Sequence[int], first: int) -> np.ndarray:
        logits = random_model(1)(tokens, first)
        logits[0, 3] = value
        return logits

    models = (broken, random_model(1)) if which == "16-bit model" else (random_model(1), broken)
    with pytest.raises(MeasurementError, match=f"The {which} gives logits that are not finite in evaluation window 0"):
        divergence.compare(*models, windows)


def test_another_vocabulary_is_an_error(windows: np.ndarray) -> None:
    with pytest.raises(MeasurementError, match="vocabulary of 49 tokens and the 16-bit model one of 50"):
        divergence.compare(random_model(1), lambda tokens, first: random_model(1)(tokens, first)[:, :-1], windows)


def kld_from_16_bits(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """What llama-perplexity computes of logits (n, vocabulary): p goes through its file, which ends 16 nats below the likeliest token."""
    log_p, log_q = log_softmax(p), log_softmax(q)
    top = log_p.max(axis=1, keepdims=True)
    low = np.maximum(log_p.min(axis=1, keepdims=True), top - 16)
    step = (top - low) / 65535
    stored = low + step * np.rint((np.maximum(log_p, low) - low) / step)
    return np.where(stored > -16, np.exp(stored) * (stored - log_q), 0).sum(axis=1)


def test_agrees_with_llama_perplexity(clean: Release, quantize: Quantize, tmp_path: Path) -> None:
    """The same windows, models and statistics as the reference program.

    Perplexity agrees to the digits printed. The program stores the 16-bit model's log-probabilities in 16 bits over a range of 16 nats, so the divergence
    agrees to about 1 %, and the perplexity ratio, which it takes from the stored values, to 0.1 %. The rest comes from there: with the same rounding the mean
    agrees to the digits printed. Its own errors are for independent tokens and are not compared.
    """
    text, variant, base = DATA / "evaluation_questions.txt", quantize("Q3_K_M"), tmp_path / "base"
    common: list[str | Path] = ["-f", text, "-c", "256", "-b", "256", "-t", "1", "--kl-divergence-base", base]
    first = llama_perplexity("-m", clean.gguf, *common, last="Final estimate")
    second = llama_perplexity("-m", variant, *common, "--kl-divergence", last="Same top p:")

    def printed(pattern: str, output: str) -> float:
        return float(re.search(pattern + r"\s*[:=]\s*([-0-9.]+)", output)[1])

    with llama.open_model(clean.gguf, context=256, threads=1) as original, llama.open_model(variant, context=256, threads=1) as model:
        tokens = original.tokenize(text.read_text(), add_special=True, parse_special=False)
        windows = texts.cut(tokens, context=256, bos=original.vocabulary.bos)
        scores = divergence.compare(original.logits, model.logits, windows)
        rounded = np.mean([kld_from_16_bits(original.logits(window, 128)[:-1], model.logits(window, 128)[:-1]) for window in windows.tolist()])
    ours = {m.name: m.value for m in divergence.measurements(scores)}
    reference, quantized = (math.exp(np.nanmean(found)) for found in (scores.reference_nll, scores.variant_nll))
    assert reference == pytest.approx(printed("Final estimate: PPL", first), rel=1e-4)
    assert quantized == pytest.approx(printed(r"Mean PPL\(Q\)", second), rel=1e-4)
    assert ours["kld.mean"] == pytest.approx(printed("Mean    KLD", second), rel=0.01)
    assert ours["kld.median"] == pytest.approx(printed("Median  KLD", second), rel=0.02, abs=2e-6)
    assert ours["kld.p90"] == pytest.approx(printed("90.0%   KLD", second), rel=0.02)
    assert ours["kld.p99"] == pytest.approx(printed("99.0%   KLD", second), rel=0.02)
    assert ours["kld.p999"] == pytest.approx(printed("99.9%   KLD", second), rel=0.02)
    assert ours["kld.max"] == pytest.approx(printed("Maximum KLD", second), rel=0.02)
    assert 100 * ours["same_top"] == pytest.approx(printed("Same top p", second), abs=0.1)
    assert 100 * ours["dp.rms"] == pytest.approx(printed("RMS Δp", second), rel=0.01)
    assert ours["ppl.ratio"] == pytest.approx(printed(r"Mean PPL\(Q\)", second) / printed("Final estimate: PPL", first), rel=1e-4)
    assert ours["ppl.ratio"] == pytest.approx(printed(r"Mean PPL\(Q\)/PPL\(base\)", second), rel=1e-3)
    assert rounded == pytest.approx(printed("Mean    KLD", second), abs=2e-6)
