"""The whole header of a GGUF file, read from the bytes that the file begins with: so many of a file on a Hub are fetched without the rest.

gguf's reader makes an object of every entry of an array, and wants the whole file.
"""

import math
import mmap
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}  # as `struct` calls them, by the type of a value
STRING, ARRAY = 8, 9  # the other types of values
ALIGNMENT = 32  # bytes, where the header states none
_BITS = {"F32": np.uint32, "F16": np.uint16, "BF16": np.uint16}
_DIMENSIONS = 4  # of a tensor, at most
_ROUTER = "ffn_gate_inp.weight"  # ends the name of what sends tokens to experts

Bytes = bytes | mmap.mmap


class Truncated(ValueError):
    """The header goes on beyond the bytes that are there."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One tensor, as a file lists it."""

    name: str
    type: str  # of ggml
    shape: tuple[int, ...]  # in PyTorch's order: rows before columns
    at: int  # where its bytes begin in the file
    bytes: int
    file: str = ""  # that holds it


@dataclass(frozen=True, kw_only=True)
class Header:
    """What stands before the tensors of a file, or of all the parts of one."""

    fields: Mapping[str, Any]  # arrays as lists
    tensors: tuple[Entry, ...]
    factors: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # of positions, by the tensor that says them, where those were read

    @property
    def architecture(self) -> str:
        """What llama.cpp calls the network."""
        return str(self.fields.get("general.architecture", ""))

    def of(self, key: str, default: Any = None) -> Any:
        """The value of a key of the architecture's own."""
        return self.fields.get(f"{self.architecture}.{key}", default)


def read(path: Path) -> Header:
    """The header of a file on this machine. Raises ValueError when it is none of a GGUF file that is whole."""
    size = path.stat().st_size
    if not size:
        raise ValueError("it is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        header = parse(data)
    if (end := max((entry.at + entry.bytes for entry in header.tensors), default=0)) > size:
        raise ValueError(f"it has {size} bytes, and its tensors end at {end}")
    return header


def mapped(place: Path, entry: Entry) -> npt.NDArray[Any]:
    """The bits of a tensor in F32, F16 or BF16, in its shape, mapped; `place` is the folder of the entry's file, or the file where the entry names none.

    Raises OSError, and ValueError when the file ends before.
    """
    return np.memmap(place / entry.file, dtype=_BITS[entry.type], mode="r", offset=entry.at, shape=entry.shape)


def is_narrow(entry: Entry) -> bool:
    """Whether llama.cpp's converter writes a tensor in 16 bits where a file is in 16 bits: vectors and what sends tokens to experts it does not."""
    return len(entry.shape) > 1 and not entry.name.endswith(_ROUTER)


def matrix_type(header: Header) -> str:
    """The type of what the converter writes in that of the file: of all such tensors, or F32 where they are of several."""
    found = {entry.type for entry in header.tensors if is_narrow(entry)}
    return found.pop() if len(found) == 1 else "F32"


def fields(data: Bytes) -> dict[str, Any]:
    """As many fields as the bytes hold whole. Raises ValueError when they are no beginning of a GGUF file."""
    found: dict[str, Any] = {}
    with suppress(Truncated):
        _read_fields(_Cursor(data=data), found)
    return found


def parse(data: Bytes) -> Header:
    """The header in these bytes. Raises Truncated when it goes on behind them, ValueError when it is none."""
    cursor, found = _Cursor(data=data), dict[str, Any]()
    count = _read_fields(cursor, found)
    listed = [_tensor(cursor) for _ in range(count)]
    alignment = found.get("general.alignment", ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise ValueError(f"its alignment is {alignment!r}")
    begin = -(-cursor.at // alignment) * alignment
    return Header(fields=found, tensors=tuple(replace(entry, at=begin + entry.at) for entry in listed))


def joined(parts: Mapping[str, Header]) -> Header:
    """The header of a model in several files, by the names of these, the first of them first; each tensor says in which it is.

    Raises ValueError when they are not all the parts of one.
    """
    first = next(iter(parts.values()))
    count = first.fields.get("split.count", 1)
    numbers = [header.fields.get("split.no", 0) for header in parts.values()]
    if numbers != list(range(len(parts))) or count not in {len(parts), 0 if len(parts) == 1 else len(parts)}:
        raise ValueError(f"it has {count} parts, and there are {len(parts)}")
    tensors = tuple(replace(entry, file=name) for name, header in parts.items() for entry in header.tensors)
    if len({entry.name for entry in tensors}) < len(tensors):
        raise ValueError("it holds a tensor twice")
    return Header(fields=first.fields, tensors=tensors)


@dataclass(kw_only=True)
class _Cursor:
    """A place in the bytes."""

    data: Bytes
    at: int = 0

    def take(self, count: int) -> bytes:
        """The next bytes. Raises Truncated."""
        if count > len(self.data) - self.at:
            raise Truncated("it ends within its header")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, form: str) -> Any:
        """The next number."""
        return struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))[0]

    def text(self) -> str:
        """The next string. Raises ValueError when it is no UTF-8."""
        return self.take(self.number("Q")).decode("utf-8")


def _read_fields(cursor: _Cursor, found: dict[str, Any]) -> int:
    """Read all fields into `found`; the number of tensors, whose table follows."""
    if cursor.take(4) != b"GGUF":
        raise ValueError("it does not begin as a GGUF file does")
    if (version := cursor.number("I")) not in {2, 3}:
        raise ValueError(f"it is of version {version} of GGUF; known are 2 and 3, on machines whose numbers begin with the lowest byte")
    tensors, pairs = int(cursor.number("Q")), int(cursor.number("Q"))
    for _ in range(pairs):
        key = cursor.text()
        found[key] = _value(cursor, cursor.number("I"))
    return tensors


def _value(cursor: _Cursor, kind: int) -> Any:
    if kind == STRING:
        return cursor.text()
    if kind in NUMBERS:
        return cursor.number(NUMBERS[kind])
    if kind != ARRAY:
        raise ValueError(f"it holds a value of the unknown type {kind}")
    inner, count = int(cursor.number("I")), int(cursor.number("Q"))
    if inner in NUMBERS:
        dtype = np.dtype(NUMBERS[inner]).newbyteorder("<")
        return np.frombuffer(cursor.take(count * dtype.itemsize), dtype=dtype).tolist()
    if inner != STRING:
        raise ValueError(f"it holds an array of the unknown type {inner}")
    return [cursor.text() for _ in range(count)]


def _tensor(cursor: _Cursor) -> Entry:
    """An entry of the table, whose place is still counted from where the tensors begin."""
    name, dimensions = cursor.text(), cursor.number("I")
    if dimensions > _DIMENSIONS:
        raise ValueError(f"{name[:100]} has {dimensions} dimensions")
    sizes = [int(cursor.number("Q")) for _ in range(dimensions)]
    number, at = cursor.number("I"), int(cursor.number("Q"))
    try:
        kind = GGMLQuantizationType(number)
    except ValueError as error:
        raise ValueError(f"{name[:100]} is of the unknown type {number}") from error
    block, size = GGML_QUANT_SIZES[kind]
    return Entry(name=name, type=kind.name, shape=_turned(sizes), at=at, bytes=math.prod(sizes) // block * size)


def _turned(sizes: Sequence[int]) -> tuple[int, ...]:
    return tuple(reversed(sizes))
