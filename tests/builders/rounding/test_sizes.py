from pathlib import Path

from safetensors import safe_open

from builders.rounding import sizes
from builders.sensitivity.table import Tensor

ROOT = Path(__file__).parents[3]


def test_experts_have_their_own_where_these_are_small() -> None:
    assert sizes.hessian_bytes(Tensor(name="", rows=1000, columns=200)) == 4 * 200**2
    assert sizes.hessian_bytes(Tensor(name="", rows=8 * 100, columns=200, experts=8)) == 8 * 4 * 200**2
    assert sizes.hessian_bytes(Tensor(name="", rows=8 * 99, columns=200, experts=8)) == 4 * 200**2
    assert sizes.hessian_bytes(Tensor(name="", rows=8 * 100, columns=200, experts=8), memory=4 * 4 * 200**2) == 4 * 200**2
    assert sizes.hessian_bytes(Tensor(name="", rows=128 * 8192, columns=5120, experts=128)) == 4 * 5120**2, "more than 8 GiB together"


def test_groups_take_what_fits() -> None:
    assert sizes.grouped([3, 3, 3, 9, 1], 6) == [[0, 1], [2], [3], [4]]


def test_what_a_checkpoint_foretells_is_what_its_tensors_take() -> None:
    """Experts lie one by one in a checkpoint of Mixtral's kind, and stacked in others."""
    with safe_open(ROOT / "bench/models/mixtral/model.safetensors", framework="pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    assert any(".experts.3." in name for name in shapes)
    layer = 4 * 256**2 + 4 * (2 * 256**2 + 512**2)  # attention, and gate, up and down of each expert
    routers = 256**2  # counted with the rest, though they stay as they are: too little to matter
    assert sizes.foretold(shapes) == 4 * (4 * (layer + routers) + 256**2)
    assert sizes.foretold({"a.experts.gate_up_proj": (8, 400, 200), "a.norm.weight": (200,), "a.conv.weight": (200, 1, 4)}) == 8 * 4 * 200**2
