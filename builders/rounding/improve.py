"""Rounds the matrices of a finished GGUF anew: copies the file that llama-quantize wrote and replaces their data, same types, same bytes."""

import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from gguf import ReaderTensor
from threadpoolctl import threadpool_limits

from builders import matrices
from builders.ggufs import described
from builders.rounding import codes, hessians
from builders.rounding.compensate import Metric, compensate
from config.errors import ToolError
from config.progress import counted
from engines import gguf_tensors
from engines.ggml import Bytes
from engines.model import Floats

VERSION = 3  # raise when outputs change


def improve(
    out: Path, *, quantized: Path, gguf: Path, statistics: Path, built: Sequence[Path] = (), rounded: Sequence[Path] = (), threads: int
) -> dict[str, Any]:
    """Write a file named as `quantized`, with metadata, types and sizes of that file, whose matrices are rounded anew from the 16-bit `gguf`.

    `statistics` is the folder of the pass over calibration text. Tensors without statistics, or of a type whose codes cannot be replaced, stay as they are.
    `built` are other mixes of the same `gguf` and `rounded` what this made of each with the same statistics: a matrix that has the same bytes in one of them
    is taken from there, which is what would come out here.
    Returns what `ggufs.described` tells and `improved` (tensors that changed). Raises ToolError, MeasurementError.
    """
    target = out / quantized.name
    shutil.copyfile(quantized, target)
    originals = {tensor.name: tensor for tensor in gguf_tensors.read(gguf)}
    done = _done(built, rounded)
    improved = []
    written = np.memmap(target, dtype=np.uint8, mode="r+")
    for tensor in counted(gguf_tensors.read(quantized), "tensors"):
        type = tensor.tensor_type.name
        if codes.layout(type) is None or (own := hessians.load(statistics, tensor.name)) is None:
            continue
        original = originals.get(tensor.name)
        if original is None or list(original.shape) != list(tensor.shape):
            raise ToolError(f"{tensor.name} of {quantized.name} is not in {gguf.name} in the same shape. Give the 16-bit file that it was made from.")
        plain = matrices.data(tensor)
        data = _found(done, tensor, plain)
        if data is None:
            data = _rounded(matrices.values(original, threads=threads), type, hessians=own, plain=plain, threads=threads)
        if not np.array_equal(data, plain):
            improved.append(tensor.name)
            written[tensor.data_offset : tensor.data_offset + data.size] = data.reshape(-1)
    written.flush()
    return {**described(target), "improved": improved}


def _done(built: Sequence[Path], rounded: Sequence[Path]) -> Mapping[tuple[str, str], tuple[ReaderTensor, ReaderTensor]]:
    """Tensors of other mixes before and after they were rounded anew, by name and type."""
    found: dict[tuple[str, str], tuple[ReaderTensor, ReaderTensor]] = {}
    for plain, again in zip(built, rounded, strict=True):
        after = {tensor.name: tensor for tensor in gguf_tensors.read(again)}
        found |= {(tensor.name, tensor.tensor_type.name): (tensor, after[tensor.name]) for tensor in gguf_tensors.read(plain)}
    return found


def _found(done: Mapping[tuple[str, str], tuple[ReaderTensor, ReaderTensor]], tensor: ReaderTensor, plain: Bytes) -> Bytes | None:
    """What rounding a tensor anew gave in another mix, where it had the same bytes."""
    before, after = done.get((tensor.name, tensor.tensor_type.name), (None, None))
    return matrices.data(after) if before is not None and after is not None and np.array_equal(matrices.data(before), plain) else None


def _rounded(values: Floats, type: str, *, hessians: Floats, plain: Bytes, threads: int) -> Bytes:
    """As `compensate`, for values (rows of all experts, columns) and one H for all, or one for each expert (experts, columns, columns)."""
    alone = Metric.of(hessians[0]) if len(hessians) == 1 else None  # a large one is worth all threads of BLAS
    together = min(threads, len(hessians))

    def expert(own: tuple[Floats, Floats, Bytes]) -> Bytes:
        hessian, part, stored = own
        return compensate(part, type, metric=alone or Metric.of(hessian), plain=stored, threads=threads // together)

    parts = zip(hessians, np.split(values, len(hessians)), np.split(plain, len(hessians)), strict=True)
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(together) as pool:  # of many small products; its threads would only wait for one another
        return np.concatenate(list(pool.map(expert, parts)))
