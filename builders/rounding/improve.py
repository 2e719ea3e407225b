"""Rounds the matrices of a finished GGUF anew: copies the file that llama-quantize wrote and replaces their data, same types, same bytes."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader

from builders import matrices
from builders.ggufs import described
from builders.rounding import codes, collect
from builders.rounding.compensate import Metric, compensate
from config.errors import ToolError

VERSION = 1  # raise when outputs change


def improve(out: Path, *, quantized: Path, gguf: Path, statistics: Path, threads: int) -> dict[str, Any]:
    """Write a file named as `quantized`, with metadata, types and sizes of that file, whose matrices are rounded anew from the 16-bit `gguf`.

    `statistics` is the folder of `collect`. Tensors without statistics, or of a type whose codes cannot be replaced, stay as they are.
    Returns what `ggufs.described` tells and `improved` (tensors that changed). Raises ToolError, MeasurementError.
    """
    target = out / quantized.name
    shutil.copyfile(quantized, target)
    originals = {tensor.name: tensor for tensor in GGUFReader(gguf).tensors}
    improved = []
    written = np.memmap(target, dtype=np.uint8, mode="r+")
    for tensor in GGUFReader(quantized).tensors:
        type = tensor.tensor_type.name
        if codes.layout(type) is None or (hessian := collect.load(statistics, tensor.name)) is None:
            continue
        original = originals.get(tensor.name)
        if original is None or list(original.shape) != list(tensor.shape):
            raise ToolError(f"{tensor.name} of {quantized.name} is not in {gguf.name} in the same shape. Give the 16-bit file that it was made from.")
        plain = matrices.data(tensor)
        data = compensate(matrices.values(original, threads=threads), type, metric=Metric.of(hessian), plain=plain, threads=threads)
        if not np.array_equal(data, plain):
            improved.append(tensor.name)
            written[tensor.data_offset : tensor.data_offset + data.size] = data.reshape(-1)
    written.flush()
    return {**described(target), "improved": improved}
