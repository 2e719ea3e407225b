import numpy as np
import pytest
from gguf import GGUFReader

from builders.quantize import quantize as whole_file
from builders.sensitivity.table import TYPES
from config.errors import ToolError
from engines import ggml

RANDOM = np.random.default_rng(0)
VALUES = RANDOM.standard_normal((8, 512)).astype(np.float32)
IMPORTANCES = RANDOM.uniform(0.1, 2.0, 512).astype(np.float32)


@pytest.mark.parametrize("type", TYPES)
def test_every_type_comes_back_close_to_what_it_was(type):
    data = ggml.quantize(VALUES, type, importances=IMPORTANCES)
    assert data.shape == (8, ggml.row_bytes(type, 512))
    error = ggml.dequantize(data, type, 512) - VALUES
    bits = 8 * data.shape[1] / 512
    assert (error**2).mean() < 6 * 4.0**-bits + 1e-5  # of normally distributed values; 4^-bits is what an ideal code of that rate leaves


@pytest.mark.parametrize("type", ["IQ2_XXS", "Q4_K", "Q8_0"])
def test_the_number_of_threads_changes_nothing(type):
    values = RANDOM.standard_normal((3000, 1024)).astype(np.float32)
    weights = RANDOM.uniform(0.1, 2.0, 1024).astype(np.float32)
    alone, together = (ggml.quantize(values, type, importances=weights, threads=threads) for threads in (1, 2))
    assert (alone == together).all()
    assert (ggml.dequantize(alone, type, 1024) == ggml.dequantize(alone, type, 1024, threads=2)).all()


@pytest.mark.parametrize("type", ["IQ1_S", "IQ2_XXS", "IQ2_XS"])
def test_where_llama_cpp_would_abort_it_is_an_error_in_words(type):
    assert ggml.needs_importances(type)
    assert not ggml.needs_importances("IQ2_S")
    with pytest.raises(ToolError, match="needs importances"):
        ggml.quantize(VALUES, type)


def test_what_is_not_finite_is_refused():
    broken = VALUES.copy()
    broken[3, 7] = np.nan
    with pytest.raises(ToolError, match="not finite"):
        ggml.quantize(broken, "Q8_0")
    with pytest.raises(ToolError, match="512 finite numbers"):
        ggml.quantize(VALUES, "Q8_0", importances=-IMPORTANCES)


def test_rows_that_do_not_fit_a_type_are_refused():
    assert not ggml.fits("Q4_K", 96)
    assert ggml.fits("Q4_0", 96)
    with pytest.raises(ValueError, match="96 values cannot be cut"):
        ggml.quantize(VALUES[:, :96], "Q4_K")


def test_the_bytes_are_those_that_llama_quantize_writes(gguf, imatrix, tmp_path):
    whole_file(tmp_path, gguf=gguf, imatrix=imatrix, type="Q4_K_M", name="m", threads=1)
    source = {tensor.name: tensor for tensor in GGUFReader(gguf).tensors}
    measured = {tensor.name: tensor.data for tensor in GGUFReader(imatrix).tensors}
    compared = 0
    for tensor in GGUFReader(tmp_path / "m-Q4_K_M.gguf").tensors:
        if f"{tensor.name}.in_sum2" not in measured:
            continue
        original = source[tensor.name]
        columns = int(original.shape[0])
        stored = original.tensor_type.name
        values = ggml.dequantize(original.data.view(np.uint8).reshape(-1, ggml.row_bytes(stored, columns)), stored, columns)
        importances = measured[f"{tensor.name}.in_sum2"].reshape(-1) / measured[f"{tensor.name}.counts"].reshape(-1)
        made = ggml.quantize(values, tensor.tensor_type.name, importances=importances)
        assert (made == tensor.data).all(), tensor.name
        compared += 1
    assert compared == 28
