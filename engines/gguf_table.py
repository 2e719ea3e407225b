"""The table of tensors in a GGUF file, read by llama.cpp's own C reader.

gguf's reader in Python makes an object of every entry of the vocabulary, 20 µs each: seconds for a real one, wherever only the tensors are wanted.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gguf import GGMLQuantizationType

from engines import ggml


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One tensor, as the file lists it."""

    name: str
    type: str  # of ggml
    values: int
    bytes: int
    dimensions: int  # that are more than 1 long: of a vector 1, of a matrix 2
    columns: int  # values in a row


@dataclass(frozen=True, kw_only=True)
class Table:
    """The tensors of a file in its order, and where their data begin."""

    entries: tuple[Entry, ...]
    header_bytes: int


class _Params(ctypes.Structure):
    """`struct gguf_init_params` of gguf.h."""

    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.POINTER(ctypes.c_void_p)))


def read(path: Path) -> Table:
    """The table of a GGUF file. Raises ValueError when it is none, or is shorter than its table says, ToolError when llama.cpp is not installed."""
    with _opened(path) as (library, file, tensors):
        entries = tuple(_entry(library, file, tensors, index) for index in range(library.gguf_get_n_tensors(file)))
        data = int(library.gguf_get_data_offset(file))
        end = max((int(library.gguf_get_tensor_offset(file, index)) + entry.bytes for index, entry in enumerate(entries)), default=0)
    if path.stat().st_size < data + end:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, and its tensors end at {data + end}")
    return Table(entries=entries, header_bytes=data)


def _entry(library: Any, file: int, tensors: ctypes.c_void_p, index: int) -> Entry:
    name = library.gguf_get_tensor_name(file, index)
    tensor = library.ggml_get_tensor(tensors, name)
    return Entry(
        name=name.decode(),
        type=GGMLQuantizationType(library.gguf_get_tensor_type(file, index)).name,
        values=(values := int(library.ggml_nelements(tensor))),
        bytes=int(library.gguf_get_tensor_size(file, index)),
        dimensions=int(library.ggml_n_dims(tensor)),
        columns=values // max(1, int(library.ggml_nrows(tensor))),
    )


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, int, ctypes.c_void_p]]:
    """The library, the open file, and the context that holds its tensors without their data."""
    library, tensors = _library(), ctypes.c_void_p()
    file = library.gguf_init_from_file(str(path).encode(), _Params(no_alloc=True, ctx=ctypes.pointer(tensors)))
    if not file:
        raise ValueError(f"{path} is no GGUF file that llama.cpp can read")
    try:
        yield library, file, tensors
    finally:
        library.gguf_free(file)
        library.ggml_free(tensors)


@cache
def _library() -> Any:
    library = ggml.loaded("libggml-base.so")
    number, pointer, text = ctypes.c_int64, ctypes.c_void_p, ctypes.c_char_p
    for name, arguments, result in (
        ("gguf_init_from_file", (text, _Params), pointer),
        ("gguf_free", (pointer,), None),
        ("ggml_free", (pointer,), None),
        ("gguf_get_n_tensors", (pointer,), number),
        ("gguf_get_data_offset", (pointer,), ctypes.c_size_t),
        ("gguf_get_tensor_name", (pointer, number), text),
        ("gguf_get_tensor_type", (pointer, number), ctypes.c_int),
        ("gguf_get_tensor_size", (pointer, number), ctypes.c_size_t),
        ("gguf_get_tensor_offset", (pointer, number), ctypes.c_size_t),
        ("ggml_get_tensor", (pointer, text), pointer),
        ("ggml_nelements", (pointer,), number),
        ("ggml_n_dims", (pointer,), ctypes.c_int),
        ("ggml_nrows", (pointer,), number),
    ):
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, result
    return library
