import numpy as np
import pytest

from builders.rounding.compensate import Metric, compensate
from config.errors import MeasurementError
from engines import ggml

COLUMNS = 512


def example() -> tuple[np.ndarray, np.ndarray]:
    """Weights, and the Hessian of inputs that depend on one another."""
    random = np.random.default_rng(0)
    inputs = random.normal(size=(2000, 64)) @ random.normal(size=(64, COLUMNS)) + random.normal(size=(2000, COLUMNS))
    return random.normal(size=(40, COLUMNS)).astype(np.float32), (inputs.T @ inputs / 2000).astype(np.float32)


def errors(data: np.ndarray, type: str, values: np.ndarray, metric: Metric) -> np.ndarray:
    error = (ggml.dequantize(data, type, COLUMNS) - values).astype(np.float64)
    return np.asarray(np.einsum("rc,cd,rd->r", error, metric.hessian, error))


@pytest.mark.parametrize("type", ["Q2_K", "Q3_K", "Q4_K", "Q6_K", "IQ4_XS", "Q4_0", "IQ2_XXS", "IQ2_S", "IQ3_XXS", "IQ3_S"])
def test_errors_fall_and_in_no_row_rise(type: str) -> None:
    values, hessian = example()
    metric = Metric.of(hessian)
    plain = ggml.quantize(values, type, importances=np.diag(hessian).copy())
    data = compensate(values, type, metric=metric, plain=plain)
    assert data.shape == plain.shape
    before, after = errors(plain, type, values, metric), errors(data, type, values, metric)
    assert (after <= before * (1 + 1e-4)).all()
    assert after.sum() < 0.8 * before.sum()


def test_independent_columns_leave_nothing_to_gain_from_each_other() -> None:
    values, _ = example()
    metric = Metric.of(np.eye(COLUMNS, dtype=np.float32))
    plain = ggml.quantize(values, "Q4_K", importances=np.ones(COLUMNS, np.float32))
    before = errors(plain, "Q4_K", values, metric).sum()
    assert errors(compensate(values, "Q4_K", metric=metric, plain=plain), "Q4_K", values, metric).sum() == pytest.approx(before, rel=0.02)


def test_threads_do_not_change_the_bytes() -> None:
    values, hessian = example()
    values = np.tile(values, (30, 1))
    plain = ggml.quantize(values, "Q4_0")
    metric = Metric.of(hessian)
    assert np.array_equal(compensate(values, "Q4_0", metric=metric, plain=plain), compensate(values, "Q4_0", metric=metric, plain=plain, threads=2))


def test_unknown_types_stay_as_they_are() -> None:
    values, hessian = example()
    plain = ggml.quantize(values, "BF16")
    assert compensate(values, "BF16", metric=Metric.of(hessian), plain=plain) is plain


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_hessian_without_information_is_an_error(value: float) -> None:
    with pytest.raises(MeasurementError, match="Hessian"):
        Metric.of(np.full((32, 32), value, dtype=np.float32))
