"""The ways of choosing layers that dynamic NF4 is compared with keep to the same bytes and the same groups."""

from pathlib import Path

import numpy as np

from bench import nf4 as bench
from builders import bnb
from builders.plan import nf4 as plan
from builders.sensitivity.table import Sensitivity, Tensor
from engines import hf, nf4

DEMO = Path(__file__).parents[2] / "demo" / "model"


def test_every_way_fills_the_same_room_with_whole_groups() -> None:
    network = hf.load_model(DEMO)
    shapes = {name: network.get_submodule(name).weight.shape for name in bnb.quantizable(network)}
    tensors = tuple(Tensor(name=name, rows=rows, columns=columns) for name, (rows, columns) in shapes.items())
    table = Sensitivity(provider="fisher", tensors=tensors, types=plan.TYPES, products=np.ones((2, len(tensors), 2), dtype=np.float32))
    room = 600_000
    ways = dict(bench.naive(DEMO, table, room))
    assert list(ways) == ["first layers", "both ends", "weight error", "random"]
    sizes = {tensor.name: 2 * tensor.parameters - nf4.stored_bytes(tensor.parameters) for tensor in tensors}
    for choice in (choice for choices in ways.values() for choice in choices):
        assert room - min(sizes.values()) * 3 < sum(sizes[name] for name in choice) <= room
        assert {nf4.fused(name) for name in choice}.isdisjoint(nf4.fused(name) for name in sizes if name not in choice)
    assert all(".layers.0." in name or ".layers.1." in name for name in ways["first layers"][0])
    assert any(".layers.3." in name for name in ways["both ends"][0])
    assert len({tuple(choice) for choice in ways["random"]}) == bench.SEEDS
