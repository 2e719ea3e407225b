"""The cost of large models: formulas, on numbers that can be worked out by hand."""

import math

import pytest

from bench.plan import cost
from builders.sensitivity import room
from config.errors import UnsupportedModel

RATES = {"Q4_K": 1e7, "IQ2_XXS": 1e6}
SHAPE = room.Shape(outside=10**8, layers=(9 * 10**7,) * 10, largest=10**8, vocabulary=1000, hidden=1000, wide=4000)
SAMPLED = 10 * (256 * 4 * 1000 + 256 * (2 * 1000 + 4000)) + 2 * (256 + 4096) * 1000  # matrices of attention, of the feed-forward, and the vocabulary's two
SMALL = cost.Model(name="small", active=1e9, shape=SHAPE)


def machine(memory: float, bus: float = 1e9) -> cost.Machine:
    return cost.Machine(name="some", memory=int(memory), operations=1e12, bandwidth=1e11, bus=bus, cores=10)


def test_a_model_that_fits_with_all_errors_runs_once() -> None:
    found = cost.estimate(SMALL, machine(1e12), RATES, windows=100, context=100)
    assert (found.groups, found.passes, found.streamed) == (1, 108, False)
    operations, products = (5 * 100 + 4 * 8) * 1e9 * 100, 2 * SAMPLED * 2 * 100
    assert found.computing == pytest.approx(max((operations + products) / 1e12, 8 * SAMPLED * 100 / 1e11 + 8 * SAMPLED / 1e9))
    assert found.quantizing == pytest.approx(SAMPLED * (1e-7 + 1e-6) / 10)
    assert found.memory == pytest.approx(4e9 + 8 * SAMPLED + 16e8 + 12 * 100 * 1000 + 4 * 6 * 100 * 5000 * 10)


def test_less_memory_costs_passes_and_then_the_bus() -> None:
    many = {f"type {number}": 1e7 for number in range(8)}
    tight = cost.estimate(SMALL, machine(2.85e9), many, windows=100, context=100)
    assert (tight.groups, tight.streamed) == (3, True)  # 4 (P0 + P1) + four gradients leave 0.45 of the 1.1 GB that the errors take
    assert tight.computing == pytest.approx(32 * SAMPLED * 100 / 1e11 + (32 * SAMPLED + 3 * 1e9 * 300 + 4 * 1e9 * 8) / 1e9)
    assert tight.memory <= 2.85e9


def test_where_host_and_device_are_one_streamed_layers_take_room_and_no_bus() -> None:
    found = cost.estimate(SMALL, machine(6e9, math.inf), RATES, windows=100, context=100)
    assert found.streamed
    assert found.computing == pytest.approx(((4 * found.groups + 2) * 100 + 6 * 8) * 1e9 * 100 / 1e12 + 4 * SAMPLED * 100 / 1e12)


def test_what_does_not_fit_at_all_is_said() -> None:
    with pytest.raises(UnsupportedModel, match=r"1,000,000,000 parameters, so sensitivities need .* bytes of memory for windows of 100 tokens, and 500,"):
        cost.estimate(SMALL, machine(5e8), RATES, windows=100, context=100)


def test_rates_are_measured_for_every_type_that_makes_an_error() -> None:
    rates = cost.quantizer_rates(["Q8_0", "Q4_K", "BF16"])
    assert rates.keys() == {"Q8_0", "Q4_K"}
    assert all(rate > 0 for rate in rates.values())
