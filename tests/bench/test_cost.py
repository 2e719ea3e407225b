"""The cost of large models: formulas, on numbers that can be worked out by hand."""

import math

import pytest

from bench.plan import cost
from builders.sensitivity import room
from config.errors import UnsupportedModel

RATES = {"Q4_K": 1e7, "IQ2_XXS": 1e6}
SHAPE = room.Shape(outside=10**8, layers=(9 * 10**7,) * 10, largest=10**8, vocabulary=1000, hidden=1000, wide=4000)
SMALL = cost.Model(name="small", active=1e9, shape=SHAPE)


def machine(memory: float, bus: float = 1e9) -> cost.Machine:
    return cost.Machine(name="some", memory=int(memory), operations=1e12, bandwidth=1e11, bus=bus, cores=10)


def test_a_model_that_fits_with_all_errors_runs_once() -> None:
    found = cost.estimate(SMALL, machine(1e12), RATES, windows=100, context=100)
    assert (found.groups, found.passes, found.streamed) == (1, 108, False)
    operations, products = (5 * 100 + 4 * 8) * 1e9 * 100, 2 * 1e9 * 2 * 100
    assert found.computing == pytest.approx(max((operations + products) / 1e12, 8e9 * 100 / 1e11 + 8e9 / 1e9))
    assert found.quantizing == pytest.approx((100 + 1000) / 10)
    assert found.memory == pytest.approx(4e9 + 8e9 + 16e8 + 12 * 100 * 1000 + 4 * 6 * 100 * 5000 * 10)


def test_less_memory_costs_passes_and_then_the_bus() -> None:
    tight = cost.estimate(SMALL, machine(3.5e9), RATES, windows=100, context=100)
    assert (tight.groups, tight.streamed) == (8, True)  # 4 (P0 + P1) + four gradients leave 1.1 of the 8 GB that the errors take
    assert tight.computing == pytest.approx(8e9 * 100 / 1e11 + (8e9 + 3 * 1e9 * 800 + 4 * 1e9 * 8) / 1e9)
    assert tight.memory <= 3.5e9


def test_where_host_and_device_are_one_streamed_layers_take_room_and_no_bus() -> None:
    found = cost.estimate(SMALL, machine(6e9, math.inf), RATES, windows=100, context=100)
    assert found.streamed
    assert found.computing == pytest.approx(((4 * found.groups + 2) * 100 + 6 * 8) * 1e9 * 100 / 1e12 + 4e11 / 1e12)


def test_what_does_not_fit_at_all_is_said() -> None:
    with pytest.raises(UnsupportedModel, match=r"1,000,000,000 parameters, so sensitivities need .* bytes of memory for windows of 100 tokens, and 500,"):
        cost.estimate(SMALL, machine(5e8), RATES, windows=100, context=100)


def test_rates_are_measured_for_every_type_that_makes_an_error() -> None:
    rates = cost.quantizer_rates(["Q8_0", "Q4_K", "BF16"])
    assert rates.keys() == {"Q8_0", "Q4_K"}
    assert all(rate > 0 for rate in rates.values())
