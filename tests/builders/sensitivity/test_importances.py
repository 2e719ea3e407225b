import numpy as np
import pytest
from gguf import GGUFReader

from builders.sensitivity import importances
from builders.sensitivity.importances import FLOOR, Entry
from builders.sensitivity.table import Tensor
from config.errors import MeasurementError
from engines import tools


def test_experts_never_reached_get_the_mean_of_the_others_and_bad_entries_a_floor():
    sums = np.array([[2.0, 4.0], [0.0, 0.0], [6.0, np.nan], [8.0, 0.0]])
    entry = Entry(sums=sums, counts=np.array([1.0, 0.0, 1.0, 2.0]))
    done, unreached = importances.complete({"t": entry}, {"t": Tensor(name="t", rows=8, columns=2, experts=4)}, {})
    assert unreached == {"t": [1]}
    means = done["t"].means
    assert means[0].tolist() == [2, 4]
    assert means[1] == pytest.approx([(2 + 6 + 4) / 3, 4 / 3])
    assert means[2] == pytest.approx([6, 3 * FLOOR])
    assert (means > 0).all()


def test_an_expert_without_tokens_is_read_as_llama_quantize_reads_it():
    assert Entry(sums=np.zeros((1, 2)), counts=np.zeros(1)).means.tolist() == [[1, 1]]


def test_importances_of_another_model_are_refused():
    entry = Entry(sums=np.ones((1, 3)), counts=np.ones(1))
    with pytest.raises(MeasurementError, match="3 columns, and the tensor has 1 of 2"):
        importances.complete({"t": entry}, {"t": Tensor(name="t", rows=8, columns=2)}, {})


def test_a_file_that_is_no_importance_matrix_is_refused(tmp_path):
    (tmp_path / "broken.gguf").write_bytes(b"not a GGUF")
    with pytest.raises(MeasurementError, match="not an importance matrix"):
        importances.load(tmp_path / "broken.gguf")


def test_llama_quantize_takes_the_completed_file_for_an_embedding_of_two_bits(imatrix, gguf, tmp_path):
    own = {"token_embd.weight": Entry(sums=np.linspace(1, 2, 256)[None] * 10, counts=np.array([10.0]))}
    done, unreached = importances.complete(importances.read(imatrix), {"token_embd.weight": Tensor(name="token_embd.weight", rows=2048, columns=256)}, own)
    importances.write(tmp_path / "importances.gguf", done, importances.About.of(imatrix))
    read = importances.load(tmp_path / "importances.gguf")
    assert read["token_embd.weight"] == pytest.approx(np.linspace(1, 2, 256))
    for name, values in importances.load(imatrix).items():
        assert np.allclose(read[name], values, rtol=1e-5, atol=FLOOR * values.mean())
    assert not unreached
    (tmp_path / "m.gguf").symlink_to(gguf)
    tools.run(
        "llama-quantize", "--imatrix", "importances.gguf", "--token-embedding-type", "IQ2_XXS", "m.gguf", "out.gguf", "Q8_0", "1", cwd=tmp_path
    )  # fmt: skip
    assert {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(tmp_path / "out.gguf").tensors}["token_embd.weight"] == "IQ2_XXS"
