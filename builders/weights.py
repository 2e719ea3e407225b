"""Reads the headers of safetensors files, and refuses what does not add up, before any library loads them."""

import json
import math
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders.ggufs import Stored
from config.errors import UpstreamError

_SCALES = ".absmax"  # ends the name of what stands beside each tensor in NF4
LARGEST_HEADER = 100_000_000  # bytes, the limit of the safetensors library itself
BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
"""All types of the library (0.8.0), with the bits of a value."""

PLAIN = frozenset({"F16", "BF16", "F32", "F64"})
"""The types of numbers that are not packed: each is stored by itself."""


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """One tensor as its file's header states it."""

    name: str
    dtype: str  # a key of BITS
    shape: tuple[int, ...]
    bytes: int
    file: str = ""  # that holds it

    @property
    def elements(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


def read_header(path: Path) -> tuple[Tensor, ...]:
    """The tensors of one safetensors file, none of them loaded.

    Raises UpstreamError unless the header is JSON of a sane length, every type is known, and the tensors' byte ranges lie inside the file, fit their shapes
    and cover it without gaps or overlaps (https://huggingface.co/docs/safetensors, "Format").
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= min(size - 8, LARGEST_HEADER):
            raise unsafe(path, f"its header claims {length} bytes in a file of {size}")
        raw = file.read(length)
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise unsafe(path, "its header is not JSON") from error
    if not isinstance(header, dict):
        raise unsafe(path, "its header is not a JSON object")
    header.pop("__metadata__", None)
    end = 0
    tensors = []
    for begin, tensor in sorted(_tensors(path, header), key=lambda item: item[0]):
        if begin != end:
            raise unsafe(path, f"the data of {tensor.name!r} begins at {begin}, not where the data before it ends, at {end}")
        end += tensor.bytes
        tensors.append(tensor)
    if end != size - 8 - length:
        raise unsafe(path, f"its tensors take {end} bytes and the file holds {size - 8 - length}")
    return tuple(tensors)


def _tensors(path: Path, header: dict[str, Any]) -> Iterator[tuple[int, Tensor]]:
    """Each tensor with the offset of its data."""
    for name, entry in header.items():
        match entry:
            case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [begin, end]} if dtype in BITS and _are_sizes(*shape, begin, end):
                tensor = Tensor(name=name, dtype=dtype, shape=tuple(shape), bytes=end - begin, file=path.name)
            case _:
                raise unsafe(path, f"the entry of {name[:200]!r} is not a known type, a shape and two offsets")
        if tensor.bytes * 8 != tensor.elements * BITS[dtype]:
            raise unsafe(path, f"{name[:200]!r} has {tensor.bytes} bytes, which do not fit its shape {shape} of {dtype}")
        yield begin, tensor


def _are_sizes(*values: object) -> bool:
    return all(isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in values)


def unsafe(path: Path, what: str) -> UpstreamError:
    """The error that says what is wrong with a safetensors file."""
    return UpstreamError(f"{path.name} is not a sound safetensors file: {what}. It was not loaded; the upload may be damaged or made to do harm.")


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder, by name."""
    return sorted(folder.glob("*.safetensors"))


def parameters(files: Iterable[Path]) -> int:
    """Number of values in these safetensors files, a tied tensor counted once."""
    return sum(tensor.elements for file in files for tensor in read_header(file))


def stored(folder: Path) -> dict[str, Stored]:
    """Each tensor of a folder's safetensors files, by name; one in bitsandbytes' NF4 with its scales' bytes, and as many values as it stands for."""
    tensors = {tensor.name: tensor for file in weight_files(folder) for tensor in read_header(file)}
    packed = {name.removesuffix(_SCALES): 0 for name in tensors if name.endswith(_SCALES)}
    found = {}
    for name, tensor in tensors.items():
        owner = next((owner for owner in (name, f"{name.partition('.weight.')[0]}.weight") if owner in packed), None)
        if owner is None:
            found[name] = Stored(type=tensor.dtype, values=tensor.elements, bytes=tensor.bytes, matrix=len(tensor.shape) > 1)
        else:
            packed[owner] += tensor.bytes
    return found | {name: Stored(type="NF4", values=2 * tensors[name].elements, bytes=size, matrix=True) for name, size in packed.items()}
