"""The graph by which llama.cpp evaluates a model: which of the file's tensors it multiplies anything by.

Only the graph itself tells. The header counts layers for multi-token prediction (`nextn_predict_layers`), which an ordinary answer never runs, and the same
count stands for layers that are run; and a layer may hold tables that are only looked up.
"""

import ctypes
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as c

from config.errors import ToolError
from engines import ggml, llama

_TOKENS = 2  # that are evaluated
_MULTIPLYING = {b"MUL_MAT", b"MUL_MAT_ID"}
_OBJECT = 32  # bytes of `struct ggml_object`, which precedes each tensor


def multiplied(gguf: Path) -> frozenset[str]:
    """Names of the tensors that stand on the left of a matrix product, of experts' products too, when llama.cpp evaluates tokens.

    A few are evaluated, for a graph is built only then. Raises ToolError, MeasurementError.
    """
    library, found = _library(), set[str]()

    def look(address: int, asked: bool, _user_data: object) -> bool:
        node = _Tensor.from_address(address)
        if library.ggml_op_name(node.op) in _MULTIPLYING and node.sources[0]:
            left = node.sources[0].contents
            while left.viewed:  # reshaped, or a part of another
                left = left.viewed.contents
            found.add(left.name.decode("utf-8", errors="replace"))
        return not asked  # asked, whether its values are wanted: no; told that they are there: go on

    with llama.open_model(gguf, context=llama.BATCH, threads=1, watcher=c.ggml_backend_sched_eval_callback(look)) as model:
        model.logits([0] * _TOKENS, _TOKENS - 1)
    return frozenset(found)


class _Tensor(ctypes.Structure):
    """`struct ggml_tensor` of ggml.h."""


_Tensor._fields_ = (
    ("type", ctypes.c_int),
    ("buffer", ctypes.c_void_p),
    ("ne", ctypes.c_int64 * 4),
    ("nb", ctypes.c_size_t * 4),
    ("op", ctypes.c_int),
    ("op_params", ctypes.c_int32 * 16),
    ("flags", ctypes.c_int32),
    ("sources", ctypes.POINTER(_Tensor) * 10),
    ("viewed", ctypes.POINTER(_Tensor)),
    ("offset", ctypes.c_size_t),
    ("data", ctypes.c_void_p),
    ("name", ctypes.c_char * 64),
    ("extra", ctypes.c_void_p),
    ("padding", ctypes.c_char * 8),
)


def _library() -> Any:
    library = ggml.loaded("libggml-base.so")
    library.ggml_op_name.restype, library.ggml_tensor_overhead.restype = ctypes.c_char_p, ctypes.c_size_t
    if library.ggml_tensor_overhead() != _OBJECT + ctypes.sizeof(_Tensor):
        raise ToolError("This llama.cpp lays out its tensors in another way than the pinned one. Adapt engines/graph.py to its ggml.h.")
    return library
