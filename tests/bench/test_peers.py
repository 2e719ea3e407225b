"""Other ways to choose types: they keep to the bytes, and each to its own idea."""

import math

import numpy as np
import pytest

from bench.plan import peers
from builders.sensitivity.table import TYPES, Sensitivity, Tensor

ROLES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
TENSORS = (
    Tensor(name="token_embd.weight", rows=2048, columns=256),
    *(Tensor(name=f"blk.{layer}.{role}.weight", rows=256 if role.startswith("attn") else 768, columns=256) for layer in range(4) for role in ROLES),
)


def bits(type_: str) -> float:
    return 8 * TENSORS[0].bytes(type_) / TENSORS[0].parameters


@pytest.fixture(scope="module")
def table() -> Sensitivity:
    rng = np.random.default_rng(0)
    size = rng.lognormal(sigma=1.5, size=len(TENSORS))
    scales = np.sqrt(size[:, None] * [0.0 if type_ == "BF16" else 4.0 ** -bits(type_) for type_ in TYPES])
    return Sensitivity(provider="fisher", tensors=TENSORS, types=TYPES, products=(rng.standard_normal((64, *scales.shape)) * scales).astype(np.float32))


@pytest.fixture(scope="module")
def probed(table: Sensitivity) -> dict[tuple[str, str], float]:
    return {(group.name, type_): table.predict(peers.probe(table, group, type_)).mean for group in peers.groups(TENSORS) for type_ in peers.PROBED}


def capacities(table: Sensitivity) -> list[int]:
    return [table.bytes({tensor.name: type_ for tensor in TENSORS}) + 12_345 for type_ in ("IQ2_S", "IQ3_S", "Q4_K", "Q6_K")]


def test_groups_are_roles_of_layers_with_fused_tensors_together() -> None:
    found = {group.name: group.tensors for group in peers.groups(TENSORS)}
    assert len(found) == 1 + 4 * 4
    assert found["2.attn_qkv"] == ("blk.2.attn_q.weight", "blk.2.attn_k.weight", "blk.2.attn_v.weight")
    assert found["2.ffn_up"] == ("blk.2.ffn_gate.weight", "blk.2.ffn_up.weight")
    assert sorted(name for members in found.values() for name in members) == sorted(tensor.name for tensor in TENSORS)


def test_every_way_fills_the_bytes_and_exceeds_them_never(table: Sensitivity, probed: dict[tuple[str, str], float]) -> None:
    for capacity in capacities(table):
        mixes = [peers.by_error(table, capacity), peers.greedy(table, probed, capacity), *(peers.at_random(table, capacity, seed) for seed in range(3))]
        for mix in mixes:
            assert mix.keys() == {tensor.name for tensor in TENSORS}
            assert 0.997 * capacity <= table.bytes(mix) <= capacity


def test_measured_gains_lead_the_greedy_mix(table: Sensitivity, probed: dict[tuple[str, str], float]) -> None:
    for capacity in capacities(table):
        greedy = table.predict(peers.greedy(table, probed, capacity)).mean
        guessed = np.mean([table.predict(peers.at_random(table, capacity, seed)).mean for seed in range(5)])
        assert table.predict(peers.by_error(table, capacity)).mean <= greedy * 1.0001
        assert greedy < 0.7 * guessed


def test_a_larger_type_that_noise_made_look_worse_costs_no_more_than_a_smaller_one(table: Sensitivity, probed: dict[tuple[str, str], float]) -> None:
    capacity = capacities(table)[2]
    noisy = probed | {("1.ffn_down", "Q5_K"): 2 * probed["1.ffn_down", "IQ2_XXS"]}
    assert table.bytes(peers.greedy(table, noisy, capacity)) >= 0.997 * capacity


def test_greedy_says_when_nothing_fits(table: Sensitivity, probed: dict[tuple[str, str], float]) -> None:
    with pytest.raises(ValueError, match="bytes more than 1000"):
        peers.greedy(table, probed, 1000)


def test_a_seed_gives_its_mix_again_and_another_seed_another(table: Sensitivity) -> None:
    capacity = capacities(table)[1]
    assert peers.at_random(table, capacity, 1) == peers.at_random(table, capacity, 1) != peers.at_random(table, capacity, 2)


def test_uniform_files_are_interpolated_in_the_logarithm_between_those_that_no_smaller_one_surpasses() -> None:
    points = [(100, 0.16), (150, 0.5), (200, 0.04), (300, 0.01)]
    assert peers.between(points, 150) == pytest.approx(math.sqrt(0.16 * 0.04))
    assert peers.between(points, 200) == pytest.approx(0.04)
    assert peers.between(points, 250) == pytest.approx(0.02)
    assert peers.between(points, 99) is None is peers.between(points, 301)


def test_a_uniform_mix_needs_every_tensor_to_have_the_type(table: Sensitivity) -> None:
    assert peers.uniform(table, "Q4_K") == {tensor.name: "Q4_K" for tensor in TENSORS}
    products = table.products.copy()
    products[:, 3, TYPES.index("Q4_K")] = np.nan
    assert peers.uniform(Sensitivity(provider="fisher", tensors=TENSORS, types=TYPES, products=products), "Q4_K") is None
