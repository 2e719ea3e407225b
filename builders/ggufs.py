"""Weighs GGUF files: parameters, tensor bytes and header, read from the file itself."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines import gguf_table

ALIGNMENT = 32  # bytes, of each tensor in a GGUF that llama-quantize writes (GGUF_DEFAULT_ALIGNMENT)


@dataclass(frozen=True, kw_only=True)
class Weight:
    """How large a GGUF file and its parts are."""

    parameters: int  # values of all tensors
    tensor_bytes: int  # of all tensors, without the padding between them
    header_bytes: int  # before the first tensor's data: metadata, vocabulary, tensor table
    file_bytes: int

    @property
    def bpw(self) -> float:
        """Bits of tensor data per parameter; metadata and vocabulary, which quantization does not touch, are not counted."""
        return self.tensor_bytes * 8 / self.parameters


@dataclass(frozen=True, kw_only=True)
class Stored:
    """How one tensor is stored."""

    type: str
    values: int
    bytes: int
    matrix: bool  # vectors are never quantized


def stored(path: Path) -> dict[str, Stored]:
    """Each tensor of a GGUF file, by name; the data are not read. Raises ValueError when the file is damaged."""
    return {entry.name: Stored(type=entry.type, values=entry.values, bytes=entry.bytes, matrix=entry.dimensions > 1) for entry in gguf_table.read(path).entries}


def padded(size: int) -> int:
    """Bytes that a tensor of `size` bytes takes in a file."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def weigh(path: Path) -> Weight:
    """The sizes of one GGUF file; its tensors are not read. Raises ValueError when it is damaged."""
    table = gguf_table.read(path)
    return Weight(
        parameters=sum(entry.values for entry in table.entries),
        tensor_bytes=sum(entry.bytes for entry in table.entries),
        header_bytes=table.header_bytes,
        file_bytes=path.stat().st_size,
    )


def described(path: Path) -> dict[str, Any]:
    """What a stage that wrote a GGUF file returns about it: `file`, `bytes`, `parameters` and `bpw` (bits of tensor data per parameter)."""
    weight = weigh(path)
    return {"file": path.name, "bytes": weight.file_bytes, "parameters": weight.parameters, "bpw": weight.bpw}
