"""The cost of rounding large models: formulas, on numbers that can be worked out by hand."""

import math

import pytest

from bench.plan import cost, rounding
from builders.sensitivity import room
from builders.sensitivity.table import Tensor
from config.errors import UnsupportedModel

TENSORS = [Tensor(name="", rows=4000, columns=1000), Tensor(name="", rows=1000, columns=4000), Tensor(name="", rows=8 * 2000, columns=1000, experts=8)]
VALUES = 4e6 + 4e6 + 16e6
SHAPE = room.Shape(outside=0, layers=(int(VALUES),), largest=16 * 10**6, vocabulary=1000, hidden=1000, wide=4000)
MODEL = cost.Model(name="small", active=1e7, shape=SHAPE)


def machine(memory: float) -> cost.Machine:
    return cost.Machine(name="some", memory=int(memory), operations=1e12, bandwidth=1e11, bus=math.inf, cores=10)


def test_with_memory_for_all_hessians_the_windows_run_once() -> None:
    found = rounding.estimate(MODEL, TENSORS, machine(1e10), 1e6, windows=100, context=100)
    assert found.disk == 4 * (1000**2 + 4000**2 + 8 * 1000**2), "experts have a Hessian each"
    assert (found.groups, found.streamed) == (1, False)
    wide = 4e6 * 1000 + 4e6 * 4000 + 16e6 * 1000
    assert found.collecting == pytest.approx((5 * 1e7 * 100 * 100 + 2 * wide * 100) / 1e12)
    factors = 2 / 3 * (1000**3 + 4000**3 + 8 * 1000**3)
    assert found.file == pytest.approx((VALUES / 1e6 + (9 * wide + 4 * factors) / rounding.PER_CORE) / 10)
    assert found.hours == (found.collecting / 3600, found.file / 3600)


def test_with_less_they_run_for_each_group() -> None:
    least = room.needed(SHAPE, context=100, streamed=False, homes=True)
    found = rounding.estimate(MODEL, TENSORS, machine(least + 4 * 16e6), 1e6, windows=100, context=100)
    assert found.groups == 3, "4 MB, then 64 MB, then 32 MB"
    assert found.collecting > rounding.estimate(MODEL, TENSORS, machine(1e10), 1e6, windows=100, context=100).collecting


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(UnsupportedModel, match="sensitivities need"):
        rounding.estimate(MODEL, TENSORS, machine(1e7), 1e6)


def test_the_matrices_are_those_of_the_models() -> None:
    for model in cost.MODELS:
        assert sum(tensor.parameters for tensor in rounding.TENSORS[model.name]) == pytest.approx(model.shape.parameters, rel=0.2)


def test_rates_are_measured() -> None:
    found = rounding.rates(["Q4_K"])
    assert found["Q4_K"] > 0
