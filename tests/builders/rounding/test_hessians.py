from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from gguf import GGUFReader

from builders import convert, fixes, matrices, quantize
from builders.rounding import hessians, improve, sizes
from builders.sensitivity import gather, layout, measure
from builders.sensitivity.gather import Pass
from builders.sensitivity.table import Tensor
from tests.builders.conftest import DATA, ROOT

COLUMNS, ROWS = 16, 8
TYPE = "Q4_0"
EXPERTS = ("blk.3.ffn_down_exps.weight", "blk.3.ffn_gate_exps.weight")
Matrix = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model of four experts a layer: its folder and its 16-bit GGUF."""
    model, out = tmp_path_factory.mktemp("mixture"), tmp_path_factory.mktemp("mixture-gguf")
    fixes.repair(model, snapshot=ROOT / "bench" / "models" / "mixtral", repo="upstream/mixture", fixes=True)
    return model, out / str(convert.convert(out, model=model, name="mixture")["file"])


def collected(out: Path, mixture: tuple[Path, Path], *, tokens: int = 4096, memory: int | None = None) -> int:
    """Write the Hessians of a model; how often the windows ran."""
    model, gguf = mixture
    text = {"chat": [DATA / "calibration.jsonl"], "plain": [DATA / "calibration_questions.txt"]}
    files, groups = {}, 0
    with measure.opened(model, **text, tokens=tokens, context=128, threads=1) as (network, windows, space):
        stored = layout.quantizable(gguf)
        placements = layout.find(stored, network)
        job = Pass(network=network, placements=placements, stored=stored, memory=memory or space.free, rounding=True)
        for group in gather.gather(job, windows, lambda energies: len(windows)):
            groups += 1
            for found in group:
                name = placements[found.place].tensor.name
                assert found.sums is not None
                files[name] = str(hessians.write(out, name, found.sums, len(windows)))
    hessians.save(out, files)
    return groups


@pytest.fixture(scope="module")
def statistics(mixture: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("statistics")
    assert collected(out, mixture) == 1
    return out


def test_each_expert_has_a_hessian_of_its_own(statistics: Path) -> None:
    for name, columns in zip(EXPERTS, (512, 256), strict=True):
        found = hessians.load(statistics, name)
        assert found is not None
        assert found.shape == (4, columns, columns)
        assert not np.allclose(found[2], found[3], atol=0.01)
        for hessian in found:
            assert np.allclose(hessian, hessian.T, atol=1e-3)
            assert np.diag(hessian).mean() == pytest.approx(1, rel=1e-4)


def test_where_memory_is_short_experts_share_one(mixture: tuple[Path, Path], tmp_path: Path) -> None:
    assert collected(tmp_path, mixture, tokens=512, memory=4 * 4 * 256**2) > 1
    shapes = [np.shape(hessians.load(tmp_path, name)) for name in EXPERTS]
    assert shapes == [(1, 512, 512), (4, 256, 256)]


def test_each_expert_is_rounded_by_its_own(mixture: tuple[Path, Path], statistics: Path, tmp_path: Path) -> None:
    _, gguf = mixture
    plain = tmp_path / str(quantize.quantize(tmp_path, gguf=gguf, imatrix=None, type=TYPE, name="mixture", threads=1)["file"])
    own = hessians.load(statistics, EXPERTS[0])
    assert own is not None
    data = []
    for place, changed in (("one", own), ("other", own[[0, 1, 3, 3]])):
        given, out = tmp_path / f"{place}-statistics", tmp_path / place
        given.mkdir()
        out.mkdir()
        (given / sizes.NAMES).write_text(f'{{"{EXPERTS[0]}": "file.npy"}}')
        np.save(given / "file.npy", changed)
        found = improve.improve(out, quantized=plain, gguf=gguf, statistics=given, threads=2)
        assert found["improved"] == [EXPERTS[0]]
        data.append(next(matrices.data(tensor).copy() for tensor in GGUFReader(out / found["file"]).tensors if tensor.name == EXPERTS[0]))
    one, other = (bytes_.reshape(4, -1) for bytes_ in data)
    assert [expert for expert in range(4) if not np.array_equal(one[expert], other[expert])] == [2]


def shape(first: float) -> Matrix:
    """The root of a covariance whose first columns weigh so much more than the others."""
    return np.diag(np.where(np.arange(COLUMNS) < 4, first, 1.0))


def estimated(windows: int, *roots: Matrix | None) -> npt.NDArray[np.float32]:
    """Hessians from so many windows of gradients with these covariances, by expert; None for one that no window reaches."""
    random = np.random.default_rng(0)
    sums = hessians.Sums.empty(len(roots), COLUMNS, torch.device("cpu"))
    for _ in range(windows):
        for expert, root in enumerate(roots):
            if root is not None:
                sums.add(expert, torch.from_numpy(random.normal(size=(ROWS, COLUMNS)) @ root).float())
    return np.stack(list(sums.hessians(windows)))


def off(found: npt.NDArray[np.float32], root: Matrix) -> float:
    true = root @ root / np.diag(root @ root).mean()
    return float(np.square(found - true).sum() / np.square(true).sum())


def test_experts_that_differ_are_told_apart_with_enough_text() -> None:
    found = estimated(500, shape(3), shape(0.3))
    assert off(found[0], shape(3)) < 0.02
    assert off(found[1], shape(0.3)) < 0.02


def test_what_differs_by_chance_is_evened_out() -> None:
    found = estimated(4, shape(2), shape(2))
    assert np.allclose(found[0], found[1], atol=0.1)


def test_what_is_above_the_diagonal_is_below_it_too() -> None:
    """With more columns than are summed up together."""
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 600))).float()
    right = (rows.T @ rows).numpy()
    for count in (1, 2):
        sums = hessians.Sums.empty(count, 600, torch.device("cpu"))
        assert sums.bytes == sizes.summed_bytes(Tensor(name="", rows=600 * count, columns=600, experts=count)) < 0.72 * 4 * count * 600**2
        assert not sums
        sums.add(0, rows)
        assert sums
        found = next(sums.hessians(1))
        np.testing.assert_allclose(found, right / np.diag(right).mean(), rtol=1e-3, atol=1e-5)
    assert float(sums.squares[0]) == pytest.approx(np.square(right).sum(), rel=1e-4)


def test_an_expert_that_was_never_reached_has_the_common_one() -> None:
    found = estimated(50, shape(3), None)
    assert np.allclose(found[1], found[0], atol=0.05)
    assert np.isfinite(found).all()
