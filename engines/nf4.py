"""bitsandbytes' NF4 with double quantization, matrix by matrix: what `builders.bnb` stores, as values and as bytes."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from bitsandbytes.functional import QuantState

BLOCK = 64  # values that share a scale
NESTED = 256  # scales that share a scale of their own
_TABLES = 4 * (16 + 256)  # bytes beside each tensor: the values that the 4 bits and the scales' 8 bits stand for
_STATE = 128  # bytes beside each tensor, about: its description in JSON
_FUSED = ((re.compile(r"(^|\.)[qkv]_proj$"), r"\1qkv_proj"), (re.compile(r"(^|\.)(gate|up)_proj$"), r"\1gate_up_proj"))


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A matrix in NF4: 4.13 bits for each value."""

    codes: "torch.Tensor"
    state: "QuantState"

    def values(self) -> "torch.Tensor":
        """The values (rows, columns) that come back, in float32, on the device on which the matrix was."""
        from bitsandbytes import functional

        back: torch.Tensor = functional.dequantize_4bit(self.codes, self.state)
        return back.float()


def pack(matrix: "torch.Tensor") -> Packed:
    """A matrix (rows, columns) of any device in NF4, quantized on the CPU from bfloat16 as a release's files are."""
    import torch
    from bitsandbytes import functional

    stored = matrix.detach().to("cpu", torch.bfloat16).contiguous()
    codes, state = functional.quantize_4bit(stored, quant_type="nf4", compress_statistics=True, blocksize=BLOCK)
    state.to(matrix.device)  # type: ignore[no-untyped-call] # the library annotates nothing here
    return Packed(codes=codes.to(matrix.device), state=state)


def stored_bytes(parameters: int) -> int:
    """Bytes of a matrix of that many values in a safetensors file, to within a hundred of its description."""
    scales = -(-parameters // BLOCK)
    return -(-parameters // 2) + scales + 4 * -(-scales // NESTED) + _TABLES + _STATE


def fused(module: str) -> str:
    """The linear layer that vLLM makes of this one and its neighbours, by its name: q, k and v are one there, and so are gate and up; or the name itself."""
    for pattern, name in _FUSED:
        if pattern.search(module):
            return pattern.sub(name, module)
    return module
