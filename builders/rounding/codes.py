"""The codes inside llama.cpp's blocks: reads and replaces them while the block's scales stay as llama.cpp chose them.

A value is offset + scale * grid[code], or scale * sign * grid[code] for eight values at once where the type has a codebook. Layouts: ggml-common.h,
ggml-quants.c. Scales are not parsed: dequantizing a block with known codes tells them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

from engines import ggml
from engines.ggml import Bytes
from engines.model import Floats

Codes = npt.NDArray[np.uint8]
_IQ4 = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Scalar:
    """A type whose values are chosen one by one."""

    grid: Floats  # (codes,) ascending
    pack: Callable[[Bytes, Codes], None]  # writes codes (blocks, values) into blocks (blocks, bytes)


@dataclass(frozen=True, kw_only=True)
class Codebook:
    """A type whose magnitudes are chosen from a codebook, for eight values at once or for twice four, and whose signs are stored apart."""

    grid: Floats  # (entries, 8 or 4), magnitudes
    even: bool  # whether the number of negative values among eight must be even
    pack: Callable[[Bytes, npt.NDArray[np.uint16], Codes], None]  # indices (blocks, 32 or 64) and signs (blocks, 32), a bit a value


Layout = Scalar | Codebook


def layout(type: str) -> Layout | None:
    """How a type's codes are stored; None when they cannot be replaced here."""
    return _scalars().get(type) or _codebooks().get(type)


def scales(data: Bytes, type: str, columns: int) -> tuple[Floats, Floats]:
    """Scale and offset (rows, columns) of each value of `data` (rows, row_bytes)."""
    kind, (size, width) = _known(type), GGML_QUANT_SIZES[GGMLQuantizationType[type]]
    if isinstance(kind, Codebook):
        blocks = data.reshape(-1, width).copy()
        kind.pack(blocks, np.zeros((len(blocks), size // kind.grid.shape[1]), dtype=np.uint16), np.zeros((len(blocks), size // 8), dtype=np.uint8))
        values = ggml.dequantize(blocks.reshape(data.shape), type, columns)
        return values / np.tile(kind.grid[0], columns // kind.grid.shape[1]), np.zeros_like(values)
    low, high = (_filled(data, type, columns, code) for code in (0, len(kind.grid) - 1))
    scale = (high - low) / (kind.grid[-1] - kind.grid[0])
    return scale, low - scale * kind.grid[0]


def replaced(data: Bytes, type: str, codes: npt.NDArray[np.uint16], signs: Codes | None = None) -> Bytes:
    """`data` (rows, row_bytes) with other codes: (rows, columns), or (rows, columns / 8 or 4) and signs (rows, columns / 8) for a codebook."""
    kind, (size, width) = _known(type), GGML_QUANT_SIZES[GGMLQuantizationType[type]]
    blocks = data.reshape(-1, width).copy()
    if isinstance(kind, Codebook):
        if signs is None:
            raise ValueError(f"the signs of {type} are stored apart from its codes: give both")
        kind.pack(blocks, codes.reshape(len(blocks), -1), signs.reshape(len(blocks), -1))
    else:
        kind.pack(blocks, codes.astype(np.uint8).reshape(-1, size))
    return blocks.reshape(data.shape)


def _known(type: str) -> Layout:
    kind = layout(type)
    if kind is None:
        raise ValueError(f"the codes of {type} cannot be replaced")
    return kind


def _filled(data: Bytes, type: str, columns: int, code: int) -> Floats:
    return ggml.dequantize(replaced(data, type, np.full((len(data), columns), code, dtype=np.uint16)), type, columns)


# ---- types whose values stand alone ---------------------------------------------------------------------------------------------------------------


@cache
def _scalars() -> dict[str, Scalar]:
    def of(grid: Floats | int, pack: Callable[[Bytes, Codes], None]) -> Scalar:
        return Scalar(grid=np.arange(grid, dtype=np.float32) if isinstance(grid, int) else grid, pack=pack)

    return {
        "Q4_0": of(16, _nibbles(2)), "Q4_1": of(16, _nibbles(4)), "IQ4_NL": of(_IQ4, _nibbles(2)), "IQ4_XS": of(_IQ4, _nibbles(8)),
        "Q5_0": of(32, _five_bits(2)), "Q5_1": of(32, _five_bits(4)), "Q8_0": of(np.arange(-127, 128, dtype=np.float32), _q8_0),
        "Q2_K": of(4, _q2_k), "Q3_K": of(8, _q3_k), "Q4_K": of(16, _q4_k), "Q5_K": of(32, _q5_k), "Q6_K": of(64, _q6_k),
    }  # fmt: skip


def _nibbles(start: int) -> Callable[[Bytes, Codes], None]:
    def pack(blocks: Bytes, codes: Codes) -> None:
        low, high = codes.reshape(len(blocks), -1, 2, 16).transpose(2, 0, 1, 3)
        blocks[:, start:] = (low | high << 4).reshape(len(blocks), -1)

    return pack


def _five_bits(start: int) -> Callable[[Bytes, Codes], None]:
    def pack(blocks: Bytes, codes: Codes) -> None:
        blocks[:, start : start + 4] = np.packbits(codes >> 4, axis=1, bitorder="little")
        blocks[:, start + 4 :] = (codes[:, :16] & 15) | (codes[:, 16:] & 15) << 4

    return pack


def _q8_0(blocks: Bytes, codes: Codes) -> None:
    blocks[:, 2:] = codes - np.uint8(127)  # in two's complement


def _crumbs(codes: Codes) -> Codes:
    """Two bits a value, in the order of Q2_K and Q3_K: (blocks, 256) to (blocks, 64)."""
    a, b, c, d = codes.reshape(-1, 2, 4, 32).transpose(2, 0, 1, 3)
    return np.asarray((a | b << 2 | c << 4 | d << 6).reshape(len(codes), 64))


def _q2_k(blocks: Bytes, codes: Codes) -> None:
    blocks[:, 16:80] = _crumbs(codes)


def _q3_k(blocks: Bytes, codes: Codes) -> None:
    blocks[:, :32] = np.packbits((codes >> 2).reshape(-1, 8, 32), axis=1, bitorder="little")[:, 0]
    blocks[:, 32:96] = _crumbs(codes & np.uint8(3))


def _pairs(codes: Codes) -> Codes:
    """Four bits a value, in the order of Q4_K and Q5_K: (blocks, 256) to (blocks, 128)."""
    low, high = codes.reshape(-1, 4, 2, 32).transpose(2, 0, 1, 3)
    return np.asarray((low | high << 4).reshape(len(codes), 128))


def _q4_k(blocks: Bytes, codes: Codes) -> None:
    blocks[:, 16:144] = _pairs(codes)


def _q5_k(blocks: Bytes, codes: Codes) -> None:
    blocks[:, 16:48] = np.packbits((codes >> 4).reshape(-1, 8, 32), axis=1, bitorder="little")[:, 0]
    blocks[:, 48:176] = _pairs(codes & np.uint8(15))


def _q6_k(blocks: Bytes, codes: Codes) -> None:
    a, b, c, d = (codes & 15).reshape(-1, 2, 4, 32).transpose(2, 0, 1, 3)
    blocks[:, :128] = np.stack([a | c << 4, b | d << 4], axis=2).reshape(-1, 128)
    blocks[:, 128:192] = _crumbs(codes >> np.uint8(4))


# ---- types with a codebook ------------------------------------------------------------------------------------------------------------------------


@cache
def _codebooks() -> dict[str, Codebook]:
    def of(type: str, even: bool, pack: Callable[[Bytes, npt.NDArray[np.uint16], Codes], None]) -> Codebook:
        kind = getattr(quants, type)
        kind.init_grid()
        return Codebook(grid=kind.grid.reshape(kind.grid_shape).astype(np.float32), even=even, pack=pack)

    return {
        "IQ2_XXS": of("IQ2_XXS", True, _iq2_xxs), "IQ2_XS": of("IQ2_XS", True, _iq2_xs), "IQ2_S": of("IQ2_S", False, _iq2_s),
        "IQ3_XXS": of("IQ3_XXS", True, _iq3_xxs), "IQ3_S": of("IQ3_S", False, _iq3_s),
    }  # fmt: skip


def _with_signs(words: Bytes, signs: Codes) -> Bytes:
    """Words (blocks, 8 * 4 bytes) whose lower 28 bits become the signs of 32 values, seven bits for eight; the upper four hold the scale."""
    packed = np.ascontiguousarray(words).view("<u4") & np.uint32(0xF0000000)
    sevens = (signs & 127).astype(np.uint32).reshape(len(signs), 8, 4)
    for i in range(4):
        packed |= sevens[:, :, i] << np.uint32(7 * i)
    return packed.view(np.uint8)


def _iq2_xxs(blocks: Bytes, indices: npt.NDArray[np.uint16], signs: Codes) -> None:
    groups = blocks[:, 2:].reshape(len(blocks), 8, 2, 4)
    words = _with_signs(groups[:, :, 1].reshape(len(blocks), 32), signs)
    both = np.stack([indices.astype(np.uint8).reshape(len(blocks), 8, 4), words.reshape(len(blocks), 8, 4)], axis=2)
    blocks[:, 2:] = both.reshape(len(blocks), 64)


def _iq2_xs(blocks: Bytes, indices: npt.NDArray[np.uint16], signs: Codes) -> None:
    blocks[:, 2:66] = (indices | (signs & 127).astype(np.uint16) << 9).astype("<u2").view(np.uint8)


def _iq2_s(blocks: Bytes, indices: npt.NDArray[np.uint16], signs: Codes) -> None:
    blocks[:, 2:34] = indices & 255
    blocks[:, 34:66] = signs
    high = (indices >> 8).astype(np.uint8).reshape(len(blocks), 8, 4)
    blocks[:, 66:74] = high[:, :, 0] | high[:, :, 1] << 2 | high[:, :, 2] << 4 | high[:, :, 3] << 6


def _iq3_xxs(blocks: Bytes, indices: npt.NDArray[np.uint16], signs: Codes) -> None:
    blocks[:, 2:66] = indices
    blocks[:, 66:98] = _with_signs(blocks[:, 66:98], signs)


def _iq3_s(blocks: Bytes, indices: npt.NDArray[np.uint16], signs: Codes) -> None:
    blocks[:, 2:66] = indices & 255
    blocks[:, 66:74] = np.packbits((indices >> 8).astype(np.uint8), axis=1, bitorder="little")
    blocks[:, 74:106] = signs
