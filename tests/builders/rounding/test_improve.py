import json
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from threadpoolctl import threadpool_info, threadpool_limits

from builders import quantize
from builders.rounding import hessians, improve, sizes
from config.errors import MeasurementError
from engines import llama
from engines.ggml import Bytes
from engines.model import Floats
from tests.builders.rounding.test_hessians import collected

TYPE = "Q2_K"  # columns of 256 and 768, types Q2_K, Q3_K and others in one file


@pytest.fixture(scope="module")
def statistics(fixed: Path, gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("statistics")
    assert collected(out, (fixed, gguf), tokens=1024, memory=2**21) > 1
    return out


@pytest.fixture(scope="module")
def quantized(gguf: Path, imatrix: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("quantized")
    return out / str(quantize.quantize(out, gguf=gguf, imatrix=imatrix, type=TYPE, name="tiny-chat", threads=1)["file"])


def test_every_matrix_has_a_symmetric_hessian(statistics: Path) -> None:
    names = json.loads((statistics / sizes.NAMES).read_text())
    assert len(names) == 29
    for name in names:
        found = hessians.load(statistics, name)
        assert found is not None
        (hessian,) = found
        assert np.allclose(hessian, hessian.T, atol=1e-3)
        assert np.diag(hessian).mean() == pytest.approx(1, rel=1e-4)
    assert hessians.load(statistics, "blk.0.attn_norm.weight") is None


def test_the_file_differs_in_its_matrices_only_and_loads(quantized: Path, gguf: Path, statistics: Path, tmp_path: Path) -> None:
    found = improve.improve(tmp_path, quantized=quantized, gguf=gguf, statistics=statistics, threads=1)
    target = tmp_path / found["file"]
    before, after = GGUFReader(quantized), GGUFReader(target)
    assert found["bytes"] == quantized.stat().st_size
    assert quantized.read_bytes()[: before.data_offset] == target.read_bytes()[: before.data_offset]
    changed = [one.name for one, other in zip(before.tensors, after.tensors, strict=True) if not np.array_equal(one.data, other.data)]
    assert changed == found["improved"]
    assert len(changed) == 29
    with llama.open_model(target, context=64, threads=1) as model:
        assert np.isfinite(model.logits(model.tokenize("What is 2 plus 3?", add_special=True), 0)).all()


def test_what_another_mix_rounded_from_the_same_bytes_is_taken_from_there(
    quantized: Path, gguf: Path, imatrix: Path, statistics: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("other", "alone", "helped"):
        (tmp_path / name).mkdir()
    other = tmp_path / "other" / str(quantize.quantize(tmp_path / "other", gguf=gguf, imatrix=imatrix, type="Q3_K_S", name="tiny", threads=1)["file"])
    alone = improve.improve(tmp_path / "alone", quantized=other, gguf=gguf, statistics=statistics, threads=1)
    again = tmp_path / str(improve.improve(tmp_path, quantized=quantized, gguf=gguf, statistics=statistics, threads=1)["file"])

    rounded, seen = improve._rounded, []

    def counting(values: Floats, type: str, *, hessians: Floats, plain: Bytes, threads: int) -> Bytes:
        seen.append(type)
        return rounded(values, type, hessians=hessians, plain=plain, threads=threads)

    monkeypatch.setattr(improve, "_rounded", counting)
    helped = improve.improve(tmp_path / "helped", quantized=other, gguf=gguf, statistics=statistics, built=[quantized], rounded=[again], threads=1)
    assert helped == alone
    assert (tmp_path / "helped" / other.name).read_bytes() == (tmp_path / "alone" / other.name).read_bytes()
    shared = {(one.name, one.tensor_type) for one in GGUFReader(quantized).tensors} & {(one.name, one.tensor_type) for one in GGUFReader(other).tensors}
    assert 0 < len(seen) == 29 - sum(name.endswith(".weight") and "norm" not in name for name, _ in shared) < 29


def test_without_statistics_the_file_is_llama_quantizes(quantized: Path, gguf: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / sizes.NAMES).write_text("{}")
    found = improve.improve(tmp_path, quantized=quantized, gguf=gguf, statistics=empty, threads=1)
    assert found["improved"] == []
    assert (tmp_path / found["file"]).read_bytes() == quantized.read_bytes()


def test_statistics_that_are_not_there_are_an_error(quantized: Path, gguf: Path, tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="cannot be read"):
        improve.improve(tmp_path, quantized=quantized, gguf=gguf, statistics=tmp_path / "nowhere", threads=1)


def test_threads_of_blas_do_not_wait_for_each_other_while_rows_are_rounded(
    quantized: Path, gguf: Path, statistics: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blas() -> set[int]:
        return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}

    seen = set()

    def compensate(*_: object, plain: Bytes, **__: object) -> Bytes:
        seen.update(blas())
        return plain

    monkeypatch.setattr(improve, "compensate", compensate)
    with threadpool_limits(2, "blas"):
        assert improve.improve(tmp_path, quantized=quantized, gguf=gguf, statistics=statistics, threads=2)["improved"] == []
        assert seen == {1}
        assert blas() == {2}
