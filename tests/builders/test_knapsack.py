"""The knapsack against brute force, against its bound, and where it cannot be solved."""

import itertools

import numpy as np
import pytest

from builders.knapsack import GAP, Item, Packed, greedy, lightest, pack
from config.errors import ConfigurationError


def random_items(random: np.random.Generator, count: int, most: int = 5) -> list[Item]:
    sizes = random.integers(1, most + 1, count)
    return [Item(weights=random.integers(1, 40, size), costs=random.uniform(0.001, 1, size) ** 3) for size in sizes]


def cheapest(items: list[Item], capacity: int) -> float:
    fitting = (
        c for c in itertools.product(*(range(len(item.costs)) for item in items)) if sum(i.weights[x] for i, x in zip(items, c, strict=True)) <= capacity
    )
    return min(sum(float(item.costs[x]) for item, x in zip(items, choice, strict=True)) for choice in fitting)


@pytest.mark.parametrize("seed", range(60))
def test_no_enumerated_solution_is_cheaper(seed: int) -> None:
    random = np.random.default_rng(seed)
    items = random_items(random, int(random.integers(1, 6)))
    capacity = int(random.integers(lightest(items), sum(int(item.weights.max()) for item in items) + 1))
    found, best = pack(items, capacity), cheapest(items, capacity)
    assert best - 1e-12 <= found.cost <= best * (1 + GAP) + 1e-12
    assert found.bound <= best + 1e-12
    assert found.weight == sum(int(item.weights[choice]) for item, choice in zip(items, found.chosen, strict=True)) <= capacity


def large(seed: int, count: int) -> tuple[list[Item], int]:
    random = np.random.default_rng(seed)
    bits = np.array([1.56, 1.75, 2.06, 2.31, 2.56, 2.63, 3.06, 3.44, 4.25, 4.5, 5.5, 6.56, 8.5, 16])
    sizes = random.choice([2**20, 3 * 2**20, 11 * 2**20], count)
    costs = [np.exp(random.normal(0, 1.5)) * size * 4.0**-bits * np.exp(random.normal(0, 0.2, len(bits))) for size in sizes]
    return [Item(weights=(size * bits / 8).astype(np.int64) // 32 * 32, costs=cost) for size, cost in zip(sizes, costs, strict=True)], int(
        sizes.sum() * 4.5 / 8
    )


def test_a_large_one_is_close_to_the_bound_and_uses_the_capacity() -> None:
    items, capacity = large(1, 400)
    found = pack(items, capacity)
    assert found.bound <= found.cost <= found.bound * 1.0003
    assert capacity * 0.9999 < found.weight <= capacity
    assert pack(items, capacity) == found


def test_whole_steps_by_efficiency_fit_and_come_close() -> None:
    items, capacity = large(2, 400)
    chosen = greedy(items, capacity)
    assert sum(int(item.weights[choice]) for item, choice in zip(items, chosen, strict=True)) <= capacity
    cost = sum(float(item.costs[choice]) for item, choice in zip(items, chosen, strict=True))
    assert pack(items, capacity).bound <= cost <= pack(items, capacity).cost * 1.01
    assert greedy(items, 0) == [int(item.weights.argmin()) for item in items]


def test_with_room_for_all_every_item_takes_its_cheapest() -> None:
    items = random_items(np.random.default_rng(0), 20)
    found = pack(items, 10**6)
    assert found.cost == found.bound == pytest.approx(sum(float(item.costs.min()) for item in items))


def test_of_choices_that_are_alike_the_first_is_taken() -> None:
    twice = Item(weights=np.array([4, 4, 2]), costs=np.array([1.0, 1.0, 3.0]))
    assert pack([twice, twice], 8) == Packed(chosen=(0, 0), weight=8, cost=2.0, bound=2.0)


def test_a_heavier_and_costlier_choice_is_never_taken() -> None:
    assert pack([Item(weights=np.array([2, 9]), costs=np.array([1.0, 2.0]))], 100).chosen == (0,)


def test_too_small_a_capacity_says_what_is_needed() -> None:
    items = random_items(np.random.default_rng(3), 5)
    with pytest.raises(ConfigurationError, match=f"leaves {lightest(items) - 1} bytes .* need {lightest(items)}"):
        pack(items, lightest(items) - 1)
