"""Weight files that are all header: what repairs ask about weights stands there, so that nobody has to copy or download the rest.

Behind the header they are a hole in the disk, as large as the data would be.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from builders.weights import Tensor, read_header
from builders.writing import write_file


def of_file(source: Path, target: Path) -> None:
    """Write the header of a safetensors file to `target`. Raises UpstreamError when it is not sound."""
    read_header(source)
    with source.open("rb") as file:
        prefix = file.read(8)
        header = file.read(struct.unpack("<Q", prefix)[0])
    _write(target, prefix + header, source.stat().st_size)


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


def _write(target: Path, beginning: bytes, size: int) -> None:
    with target.open("xb") as file:
        file.write(beginning)
        file.truncate(size)
