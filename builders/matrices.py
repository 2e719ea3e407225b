"""Matrices of GGUF files as values, and as the bytes of a type, each expert with its own importances."""

import numpy as np
from gguf import ReaderTensor

from engines import ggml
from engines.ggml import Bytes
from engines.model import Floats


def data(stored: ReaderTensor) -> Bytes:
    """A tensor's bytes (rows of all experts, row_bytes)."""
    rows = int(np.prod(stored.shape[1:], dtype=np.int64))
    return np.ascontiguousarray(stored.data).view(np.uint8).reshape(rows, -1)


def values(stored: ReaderTensor, *, threads: int = 1) -> Floats:
    """A tensor's values (rows of all experts, columns)."""
    return ggml.dequantize(data(stored), stored.tensor_type.name, int(stored.shape[0]), threads=threads)


def quantized(given: Floats, type: str, *, experts: int, importances: Floats | None, threads: int = 1) -> Bytes:
    """The bytes (rows, row_bytes) of values (rows of all experts, columns) in a type, as llama-quantize makes them.

    `importances` are (columns,) or (experts, columns). Raises ToolError as `ggml.quantize` does.
    """
    columns = given.shape[1]
    weights = [None] * experts if importances is None else list(np.broadcast_to(importances, (experts, columns)))
    each = given.reshape(experts, -1, columns)
    return np.concatenate([ggml.quantize(part, type, importances=own, threads=threads) for part, own in zip(each, weights, strict=True)])


def error(given: Floats, type: str, *, importances: Floats | None, threads: int = 1) -> Floats:
    """What storing values (rows, columns) of one expert in a type adds to them; `importances` are (columns,). Raises ToolError as `ggml.quantize` does."""
    return ggml.dequantize(ggml.quantize(given, type, importances=importances, threads=threads), type, given.shape[1], threads=threads) - given
