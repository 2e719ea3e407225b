"""llama.cpp's own block quantizers, tensor by tensor, through the C interface of ggml: what llama-quantize calls, without a file in between."""

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from config.errors import ToolError
from engines import toolchain
from engines.model import Floats

Bytes = npt.NDArray[np.uint8]

ACTIVATIONS = (256, 32)
"""How many activations can share a scale of 8 bits in llama.cpp's CPU kernels."""

_CHUNK = 2**20  # values that one thread quantizes at a time


class _Traits(ctypes.Structure):
    """`struct ggml_type_traits` of ggml.h."""

    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("block_values", ctypes.c_int64),
        ("block_values_interleaved", ctypes.c_int64),
        ("block_bytes", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
        ("from_float", ctypes.c_void_p),
    )


class _CpuTraits(ctypes.Structure):
    """`struct ggml_type_traits_cpu` of ggml-cpu.h."""

    _fields_ = (("from_float", ctypes.c_void_p), ("vec_dot", ctypes.c_void_p), ("vec_dot_type", ctypes.c_int), ("rows", ctypes.c_int64))


def activation_block(type: str) -> int | None:
    """How many activations share a scale, one of ACTIVATIONS, when a CPU multiplies them with a matrix of this type; None when they keep 16 bits or more."""
    rounded = _cpu_library().ggml_get_type_traits_cpu(GGMLQuantizationType[type].value).contents.vec_dot_type
    block, _ = GGML_QUANT_SIZES[GGMLQuantizationType(rounded)]
    return block if block in ACTIVATIONS else None


def fits(type: str, columns: int) -> bool:
    """Whether rows of that many values can be cut into the type's blocks."""
    return columns % GGML_QUANT_SIZES[GGMLQuantizationType[type]][0] == 0


def row_bytes(type: str, columns: int) -> int:
    """Bytes of one row of `columns` values. Raises ValueError when the row cannot be cut into the type's blocks."""
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[type]]
    if columns % block:
        raise ValueError(f"rows of {columns} values cannot be cut into the blocks of {block} that {type} has")
    return columns // block * size


def needs_importances(type: str) -> bool:
    """Whether llama.cpp quantizes to this type with importances only; without them it would end the process."""
    return bool(_library().ggml_quantize_requires_imatrix(GGMLQuantizationType[type].value))


def quantize(values: Floats, type: str, *, importances: Floats | None = None, threads: int = 1) -> Bytes:
    """The bytes (rows, row_bytes) that llama.cpp makes of `values` (rows, columns); `importances` (columns,) weigh the squared error of each column.

    The result does not depend on `threads`. Raises ToolError when a value is not finite, and where llama.cpp itself would abort.
    """
    rows, columns = values.shape
    values = np.ascontiguousarray(values, dtype=np.float32)
    if importances is None and needs_importances(type):
        raise ToolError(f"{type} needs importances: without them llama.cpp cannot choose its grid points. Give them, or leave {type} out for this tensor.")
    if importances is not None:
        importances = np.ascontiguousarray(importances, dtype=np.float32)
        if importances.shape != (columns,) or not np.isfinite(importances).all() or (importances < 0).any():
            raise ToolError(f"Importances must be {columns} finite numbers of at least 0; given are {importances.shape}, not all of them so.")
    if not np.isfinite(values).all():
        raise ToolError(f"A tensor of {rows} rows holds values that are not finite; it cannot be quantized. Look at the upstream weights.")
    out = np.empty((rows, row_bytes(type, columns)), dtype=np.uint8)
    library, number = _library(), GGMLQuantizationType[type].value
    library.ggml_quantize_init(number)
    weights = None if importances is None else importances.ctypes.data
    step = max(1, _CHUNK // columns)

    def chunk(first: int) -> None:
        count = min(step, rows - first)
        library.ggml_quantize_chunk(number, values.ctypes.data, out.ctypes.data, first * columns, count, columns, weights)

    _each(chunk, range(0, rows, step), threads)
    return out


def dequantize(data: Bytes, type: str, columns: int, *, threads: int = 1) -> Floats:
    """The values (rows, columns) of rows in one of ggml's types. `data` is (rows, row_bytes)."""
    rows = len(data)
    data = np.ascontiguousarray(data)
    if type == "F32":
        return data.view(np.float32).reshape(rows, columns).copy()
    out = np.empty((rows, columns), dtype=np.float32)
    to_float, size, step = _to_float(type), row_bytes(type, columns), max(1, _CHUNK // columns)

    def chunk(first: int) -> None:
        count = min(step, rows - first)
        to_float(data.ctypes.data + first * size, out.ctypes.data + first * columns * 4, count * columns)

    _each(chunk, range(0, rows, step), threads)
    return out


def _each(work: Callable[[int], None], parts: range, threads: int) -> None:
    if threads == 1 or len(parts) == 1:
        for part in parts:
            work(part)
        return
    with ThreadPoolExecutor(threads) as pool:  # ctypes lets go of the interpreter while a C function runs
        list(pool.map(work, parts))


@cache
def _to_float(type: str) -> Any:
    return _library().ggml_get_type_traits(GGMLQuantizationType[type].value).contents.to_float


@cache
def _cpu_library() -> Any:
    library = loaded("libggml-cpu.so")
    library.ggml_get_type_traits_cpu.argtypes = (ctypes.c_int,)
    library.ggml_get_type_traits_cpu.restype = ctypes.POINTER(_CpuTraits)
    return library


@cache
def _library() -> Any:
    library = loaded("libggml-base.so")
    library.ggml_quantize_requires_imatrix.argtypes = (ctypes.c_int,)
    library.ggml_quantize_requires_imatrix.restype = ctypes.c_bool
    library.ggml_quantize_init.argtypes = (ctypes.c_int,)
    library.ggml_quantize_init.restype = None
    library.ggml_quantize_chunk.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *(ctypes.c_int64,) * 3, ctypes.c_void_p)
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_get_type_traits.argtypes = (ctypes.c_int,)
    library.ggml_get_type_traits.restype = ctypes.POINTER(_Traits)
    return library


def loaded(name: str) -> ctypes.CDLL:
    """One of llama.cpp's libraries, by the name of its file. Raises ToolError when it cannot be loaded."""
    path = toolchain.location() / "lib" / name
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise ToolError(f"{path} cannot be loaded: {error}. Install llama.cpp with `make setup`.") from error
