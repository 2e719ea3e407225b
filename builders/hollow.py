"""Weight files that are all header: what repairs ask about weights stands there, so that nobody has to copy or download the rest.

Behind the header they are a hole in the disk, as large as the data would be.
"""

import json
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from builders.weights import Tensor, read_header, unsafe
from builders.writing import write_file

PIECE = 2**24  # bytes of a tensor's data that are held at a time


def of_tensors(tensors: Mapping[str, Any], target: Path) -> None:
    """Write the header of a file on the Hub, whose tensors are the client's `TensorInfo`, to `target`. Raises UpstreamError when it is not sound."""
    described = {name: {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": list(tensor.data_offsets)} for name, tensor in tensors.items()}
    header = json.dumps(described).encode()
    end = max((int(tensor.data_offsets[1]) for tensor in tensors.values()), default=0)
    _write(target, struct.pack("<Q", len(header)) + header, 8 + len(header) + end)
    read_header(target)


def of(tensors: Sequence[Tensor], target: Path) -> None:
    """Write the header of a file of these tensors to `target`."""
    write_file(target, tensors, ())
    with target.open("r+b") as file:
        file.truncate(target.stat().st_size + sum(tensor.bytes for tensor in tensors))


def fill(target: Path, name: str, read: Callable[[int, int], bytes]) -> None:
    """Put the data of one tensor into its file, which is all header; `read` gives so many bytes, the first of which is so far from the end of the whole file.

    Raises UpstreamError when they are fewer.
    """
    behind = 0
    with target.open("r+b") as file:
        for tensor in reversed(read_header(target)):
            behind += tensor.bytes
            for done in range(0, tensor.bytes if tensor.name == name else 0, PIECE):
                count = min(PIECE, tensor.bytes - done)
                if len(data := read(behind - done, count)) < count:
                    raise unsafe(target, f"of {name!r} some data cannot be read")
                file.seek(done - behind, os.SEEK_END)
                file.write(data)


def _write(target: Path, beginning: bytes, size: int) -> None:
    with target.open("xb") as file:
        file.write(beginning)
        file.truncate(size)
