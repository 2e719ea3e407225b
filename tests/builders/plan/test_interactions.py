"""The second step: it finds errors that cancel where there are some, and leaves noise alone."""

import numpy as np

from builders.plan.interactions import refine
from builders.plan.solve import padded, solve
from builders.sensitivity.table import Sensitivity, Tensor
from config.plans import Rules

TYPES = ("Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_0")


def table(windows: int, shared: float) -> Sensitivity:
    """Ten tensors; `shared` is the part of the errors that the tensors have in common, with alternating signs in two of three."""
    random, count = np.random.default_rng(5), 10
    own = random.standard_normal((windows, count, 1))
    common = random.standard_normal((windows, 1, 1)) * np.array([1.0, 1.0, 1.0, 1.0, -1.0] * 2)[None, :, None]
    scale = np.array([1.0, 0.5, 0.25, 0.12, 0.03])[None, None, :] * random.uniform(0.5, 2, (1, count, 1))
    products = ((np.sqrt(1 - shared) * own + np.sqrt(shared) * common) * scale).astype(np.float32)
    tensors = tuple(Tensor(name=f"blk.{layer}.attn_q.weight", rows=256, columns=256) for layer in range(count))
    return Sensitivity(provider="fisher", tensors=tensors, types=TYPES, products=products)


def test_errors_that_cancel_are_found_and_the_budget_is_kept() -> None:
    sensitivity, rules = table(400, 0.95), Rules()
    capacity = sum(tensor.parameters for tensor in sensitivity.tensors) * 5 // 8
    mix = solve(sensitivity, capacity=capacity, rules=rules)
    found = refine(sensitivity, mix, capacity=capacity, rules=rules)
    assert found.used
    assert found.gain > 2 * found.stderr > 0
    assert sensitivity.predict(found.mix, interactions=True).mean < 0.9 * sensitivity.predict(mix, interactions=True).mean
    assert sum(padded(tensor, found.mix[tensor.name]) for tensor in sensitivity.tensors) <= capacity


def test_noise_is_left_alone() -> None:
    sensitivity, rules = table(40, 0.0), Rules()
    capacity = sum(tensor.parameters for tensor in sensitivity.tensors) * 5 // 8
    mix = solve(sensitivity, capacity=capacity, rules=rules)
    found = refine(sensitivity, mix, capacity=capacity, rules=rules)
    assert (found.used, found.mix) == (False, mix)
