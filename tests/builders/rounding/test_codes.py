import numpy as np
import pytest

from builders.rounding import codes
from engines import ggml

SCALARS = ("Q4_0", "Q4_1", "IQ4_NL", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS")
CODEBOOKS = ("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S")
COLUMNS = 512


def quantized(type: str) -> np.ndarray:
    values = np.random.default_rng(0).normal(size=(6, COLUMNS)).astype(np.float32)
    return ggml.quantize(values, type, importances=np.ones(COLUMNS, np.float32))


@pytest.mark.parametrize("type", SCALARS)
def test_any_code_decodes_to_its_grid_value(type: str) -> None:
    data, kind = quantized(type), codes.layout(type)
    assert isinstance(kind, codes.Scalar)
    scale, offset = codes.scales(data, type, COLUMNS)
    drawn = np.random.default_rng(1).integers(0, len(kind.grid), (6, COLUMNS)).astype(np.uint16)
    values = ggml.dequantize(codes.replaced(data, type, drawn), type, COLUMNS)
    np.testing.assert_allclose(values, offset + scale * kind.grid[drawn], atol=1e-5)
    assert np.abs(values - ggml.dequantize(data, type, COLUMNS)).max() > 0.1


@pytest.mark.parametrize("type", SCALARS)
def test_the_same_codes_give_the_same_bytes(type: str) -> None:
    data, kind = quantized(type), codes.layout(type)
    assert isinstance(kind, codes.Scalar)
    scale, offset = codes.scales(data, type, COLUMNS)
    values = ggml.dequantize(data, type, COLUMNS)
    read = np.abs(offset[..., None] + scale[..., None] * kind.grid - values[..., None]).argmin(-1).astype(np.uint16)
    assert np.array_equal(codes.replaced(data, type, read), data)


@pytest.mark.parametrize("type", CODEBOOKS)
def test_any_codeword_and_signs_decode_to_their_values(type: str) -> None:
    data, kind = quantized(type), codes.layout(type)
    assert isinstance(kind, codes.Codebook)
    scale, _ = codes.scales(data, type, COLUMNS)
    random = np.random.default_rng(1)
    words = random.integers(0, len(kind.grid), (6, COLUMNS // kind.grid.shape[1])).astype(np.uint16)
    negative = random.integers(0, 2, (6, COLUMNS // 8, 8)).astype(np.uint8)
    if kind.even:
        negative[..., 7] = negative[..., :7].sum(-1) % 2
    signs = np.packbits(negative.reshape(6, COLUMNS), axis=1, bitorder="little")
    values = ggml.dequantize(codes.replaced(data, type, words, signs), type, COLUMNS)
    expected = scale * kind.grid[words].reshape(6, COLUMNS) * (1 - 2.0 * negative.reshape(6, COLUMNS))
    np.testing.assert_allclose(values, expected, atol=1e-5)


def test_types_that_are_not_known_have_no_layout() -> None:
    assert codes.layout("IQ1_S") is None
    assert codes.layout("BF16") is None
    with pytest.raises(ValueError, match="IQ1_S"):
        codes.scales(np.zeros((1, 50), np.uint8), "IQ1_S", 256)


def test_a_codebook_needs_signs() -> None:
    with pytest.raises(ValueError, match="signs"):
        codes.replaced(quantized("IQ3_S"), "IQ3_S", np.zeros((6, COLUMNS // 4), np.uint16))
