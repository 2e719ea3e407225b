"""gguf, llama.cpp's package for Python: every tensor of a file, against llama.cpp's C reader and its own dequantization."""

from collections.abc import Callable
from importlib import metadata

import numpy as np

from engines import ggml, gguf_table, gguf_tensors
from qa.readers import running
from qa.readers.words import GGUF, Outcome, Reader, Reference, Result, Variant

ROWS = 4  # of each tensor that are dequantized
NEAR = 1e-6  # share of the largest value by which two dequantizations may differ: float32 in another order


def ask(variant: Variant, reference: Callable[[], Reference]) -> Outcome:
    """No model is run."""
    command, environment = running.python("gguf_python.py")
    found = running.ask(command, {"file": str(variant.path), "rows": ROWS}, environment=environment)["tensors"]
    table = gguf_table.read(variant.path).entries
    if [(item["name"], item["type"], item["values"]) for item in found] != [(entry.name, entry.type, entry.values) for entry in table]:
        return Outcome(result=Result.OTHER, words="it lists other tensors, types or sizes than llama.cpp does")
    own = {tensor.name: tensor for tensor in gguf_tensors.read(variant.path)}
    for item, entry in zip(found, table, strict=True):
        data = own[entry.name].data
        rows = np.atleast_2d(data.reshape(-1, data.shape[-1]))[:ROWS].view(np.uint8)
        expected = ggml.dequantize(rows, entry.type, entry.columns)
        values = np.frombuffer(bytes.fromhex(item["rows"]), dtype=np.float32).reshape(expected.shape)
        if not np.abs(values - expected).max() <= NEAR * max(float(np.abs(expected).max()), 1e-30):
            return Outcome(result=Result.OTHER, words=f"it dequantizes {entry.name} ({entry.type}) to other values than llama.cpp does")
    return Outcome(result=Result.SAME, words=f"{len(table)} tensors, {ROWS} rows of each dequantized")


READER = Reader(name="gguf (Python)", version=lambda: metadata.version("gguf"), forms=frozenset({GGUF}), missing=lambda: None, ask=ask)
