"""The cost of large models: formulas, on numbers that can be worked out by hand."""

import pytest

from bench.plan import cost

RATES = {"Q4_K": 1e7, "IQ2_XXS": 1e6}
SMALL = cost.Shape(name="small", parameters=1e9, active=1e9, layers=10, hidden=1000, wide=4000, vocabulary=1000, largest=1e8)
MACHINE = cost.Machine(name="large", memory=1e12, operations=1e12, bandwidth=1e11, bus=1e9, cores=10)


def test_a_model_that_fits_with_all_errors_runs_once() -> None:
    found = cost.estimate(SMALL, MACHINE, RATES, windows=100, context=100)
    assert (found.groups, found.passes, found.off_loaded) == (1, 100, False)
    operations, products = 5 * 1e9 * 100 * 100, 2 * 1e9 * 2 * 100
    assert found.computing == pytest.approx(max((operations + products) / 1e12, 8e9 * 100 / 1e11 + 8e9 / 1e9))
    assert found.quantizing == pytest.approx((100 + 1000) / 10)
    assert found.memory == pytest.approx(2e9 + 8e9 + 2 * 2e8 + 12 * 100 * 1000 + 20 * 100 * 10 * 5000 * 2)


def test_less_memory_costs_passes_and_then_the_bus() -> None:
    tight = cost.estimate(SMALL, cost.Machine(name="tight", memory=5e9, operations=1e12, bandwidth=1e11, bus=1e9, cores=10), RATES, windows=100, context=100)
    assert (tight.groups, tight.off_loaded) == (4, False)
    tiny = cost.estimate(SMALL, cost.Machine(name="tiny", memory=2e9, operations=1e15, bandwidth=1e15, bus=1e9, cores=10), RATES, windows=100, context=100)
    assert tiny.off_loaded
    assert tiny.computing == pytest.approx((3 * 1e9 * tiny.passes + 8e9) / 1e9, rel=0.01)
    assert tiny.memory <= 2e9


def test_what_does_not_fit_at_all_is_said() -> None:
    with pytest.raises(ValueError, match="no room for the error of the largest tensor of small"):
        cost.estimate(SMALL, cost.Machine(name="none", memory=5e8, operations=1, bandwidth=1, bus=1, cores=1), RATES)


def test_rates_are_measured_for_every_type_that_makes_an_error() -> None:
    rates = cost.quantizer_rates(["Q8_0", "Q4_K", "BF16"])
    assert rates.keys() == {"Q8_0", "Q4_K"}
    assert all(rate > 0 for rate in rates.values())
