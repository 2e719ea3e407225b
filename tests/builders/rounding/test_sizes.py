from builders.rounding import sizes
from builders.sensitivity.table import Tensor


def test_experts_have_their_own_where_these_are_small() -> None:
    assert sizes.hessian_bytes(Tensor(name="", rows=1000, columns=200)) == 4 * 200**2
    assert sizes.hessian_bytes(Tensor(name="", rows=8 * 100, columns=200, experts=8)) == 8 * 4 * 200**2
    assert sizes.hessian_bytes(Tensor(name="", rows=8 * 99, columns=200, experts=8)) == 4 * 200**2
    assert sizes.hessian_bytes(Tensor(name="", rows=8 * 100, columns=200, experts=8), memory=4 * 4 * 200**2) == 4 * 200**2
    assert sizes.hessian_bytes(Tensor(name="", rows=128 * 8192, columns=5120, experts=128)) == 4 * 5120**2, "more than 8 GiB together"


def test_groups_take_what_fits() -> None:
    assert sizes.grouped([3, 3, 3, 9, 1], 6) == [[0, 1], [2], [3], [4]]


def test_what_rounding_reads_is_told_from_what_plans_read() -> None:
    files = ("hessians.json", "hessian-blk.0.attn_q.weight.npy", "products.npy", "sensitivity.json", "importances.gguf")
    assert [sizes.belongs(path) for path in files] == [True, True, False, False, False]
