"""Weighs GGUF files: parameters, tensor bytes and header, read from the file itself."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGUFReader

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
    """Each tensor of a GGUF file, by name; the data are mapped, not read."""
    return {
        tensor.name: Stored(type=tensor.tensor_type.name, values=int(tensor.n_elements), bytes=int(tensor.n_bytes), matrix=len(tensor.shape) > 1)
        for tensor in GGUFReader(path).tensors
    }


def padded(size: int) -> int:
    """Bytes that a tensor of `size` bytes takes in a file."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def weigh(path: Path) -> Weight:
    """The sizes of one GGUF file; its tensors are mapped, not read."""
    reader = GGUFReader(path)
    return Weight(
        parameters=int(sum(int(tensor.n_elements) for tensor in reader.tensors)),
        tensor_bytes=int(sum(int(tensor.n_bytes) for tensor in reader.tensors)),
        header_bytes=int(reader.data_offset),
        file_bytes=path.stat().st_size,
    )


def described(path: Path) -> dict[str, Any]:
    """What a stage that wrote a GGUF file returns about it: `file`, `bytes`, `parameters` and `bpw` (bits of tensor data per parameter)."""
    weight = weigh(path)
    return {"file": path.name, "bytes": weight.file_bytes, "parameters": weight.parameters, "bpw": weight.bpw}
