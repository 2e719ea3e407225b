import numpy as np
import pytest

from builders.sensitivity import rows
from builders.sensitivity.table import Tensor


def test_a_tensor_of_few_rows_is_taken_whole():
    small = Tensor(name="blk.0.attn_k.weight", rows=192, columns=576)
    (all_of_it,) = rows.strata(small, np.arange(192), np.ones(192))
    assert all_of_it.whole
    assert rows.most(small) == 192


@pytest.mark.parametrize(("count", "experts"), [(1536, 1), (4096, 1), (128 * 768, 128)])
def test_rows_with_large_gradients_are_taken_and_others_stand_for_the_rest_of_the_whole_tensor(count, experts):
    tensor = Tensor(name="blk.0.ffn_up_exps.weight", rows=count, columns=256, experts=experts)
    energies = np.random.default_rng(0).random(count)
    heavy, others = rows.strata(tensor, np.arange(count), energies)
    wanted = rows.most(tensor)
    assert heavy.whole
    assert energies[heavy.rows].min() > energies[others.rows].max()
    assert len(heavy.sample) + len(others.sample) == wanted == max(rows.ROWS, rows.LEAST * experts)
    assert sorted([*heavy.rows, *others.rows]) == list(range(count))
    assert (np.diff(others.sample) > 0).all()
    assert len(set(np.diff(others.sample).tolist())) > 1  # at no fixed distance, which would pick the same place of every head
    _, of_each = np.unique(others.sample // (count // experts), return_counts=True)
    assert len(of_each) == experts


def test_parts_of_a_tensor_in_several_parameters_have_their_share():
    tensor = Tensor(name="blk.0.attn_qkv.weight", rows=3000, columns=256)
    parts = [rows.strata(tensor, np.arange(first, first + 1000), np.ones(1000)) for first in (0, 1000, 2000)]
    assert sum(len(stratum.sample) for part in parts for stratum in part) in range(rows.ROWS, rows.ROWS + 3)
    (tiny,) = rows.strata(tensor, np.array([5]), np.ones(1))
    assert len(tiny.sample) == 1


def test_frequent_tokens_are_all_taken():
    tensor = Tensor(name="token_embd.weight", rows=100_000, columns=256)
    frequent = [*range(90_000, 90_000 + rows.FREQUENT), 3]
    known, rest = rows.strata(tensor, np.arange(100_000), np.zeros(100_000), frequent)
    assert known.whole
    assert set(frequent[: rows.FREQUENT]) <= set(known.rows.tolist())
    assert len(known.sample) + len(rest.sample) <= rows.most(tensor)
    assert not rest.whole
