"""The tensors of a GGUF file with their data, mapped; the entries of its vocabulary are passed over.

gguf's reader makes an object of every entry of an array, 20 µs each: many seconds for a vocabulary of 262,144 with its scores and types, in each
stage that only wants tensors.
"""

import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGUFReader, GGUFValueType, ReaderTensor

FEW = 64  # entries of an array that is read like any other field
CHUNK = 2**26  # bytes that are compared at a time


class Reader(GGUFReader):
    """gguf's reader, in which a long array is a field without contents."""

    def _get_field_parts(self, orig_offs: int, raw_type: int) -> tuple[int, list[npt.NDArray[Any]], list[int], list[GGUFValueType]]:
        if GGUFValueType(raw_type) != GGUFValueType.ARRAY:
            return super()._get_field_parts(orig_offs, raw_type)
        item = GGUFValueType(int(self._get(orig_offs, np.uint32)[0]))
        count = int(self._get(orig_offs + 4, np.uint64)[0])
        if count <= FEW or item == GGUFValueType.ARRAY:
            return super()._get_field_parts(orig_offs, raw_type)
        first = orig_offs + 12
        return self._end(first, item, count) - orig_offs, [], [], [GGUFValueType.ARRAY, item]

    def _end(self, at: int, item: GGUFValueType, count: int) -> int:
        """Where an array ends. Raises ValueError when that is beyond the file."""
        if item != GGUFValueType.STRING:
            at += count * np.dtype(self.gguf_scalar_to_np[item]).itemsize
        else:
            length = struct.Struct(">Q" if (self.byte_order == "S") == (sys.byteorder == "little") else "<Q")
            data = memoryview(self.data)  # type: ignore[arg-type]
            try:
                for _ in range(count):
                    at += 8 + length.unpack_from(data, at)[0]
            except struct.error as error:
                raise ValueError(f"an array of {count} strings ends beyond the file") from error
        if at > len(self.data):
            raise ValueError(f"an array of {count} entries ends beyond the file")
        return at


def read(path: Path) -> list[ReaderTensor]:
    """Every tensor in the file's order. Raises ValueError, IndexError, KeyError, OverflowError or OSError when the file is damaged, as gguf's reader does."""
    return Reader(path).tensors


def same(one: ReaderTensor, other: ReaderTensor) -> bool:
    """Whether two tensors have the same type, shape and bytes."""
    if one.tensor_type != other.tensor_type or one.shape.tolist() != other.shape.tolist():
        return False
    ours, theirs = (tensor.data.reshape(-1).view(np.uint8) for tensor in (one, other))
    return all(np.array_equal(ours[at : at + CHUNK], theirs[at : at + CHUNK]) for at in range(0, len(ours), CHUNK))
