"""bitsandbytes' NF4 with double quantization, matrix by matrix, on the CPU: what `builders.bnb` stores, as values and as bytes."""

import numpy as np

from engines.model import Floats

BLOCK = 64  # values that share a scale
NESTED = 256  # scales that share a scale of their own
_TABLES = 4 * (16 + 256)  # bytes beside each tensor: the values that the 4 bits and the scales' 8 bits stand for
_STATE = 128  # bytes beside each tensor, about: its description in JSON


def roundtrip(values: Floats) -> Floats:
    """The values (rows, columns) that come back from NF4. Their difference from `values` is the error whose product with a gradient goes into a table."""
    import torch
    from bitsandbytes import functional

    matrix = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(torch.bfloat16)
    packed, state = functional.quantize_4bit(matrix, quant_type="nf4", compress_statistics=True, blocksize=BLOCK)
    back: Floats = functional.dequantize_4bit(packed, state).to(torch.float32).numpy()
    return back


def stored_bytes(parameters: int) -> int:
    """Bytes of a matrix of that many values in a safetensors file, to within a hundred of its description."""
    scales = -(-parameters // BLOCK)
    return -(-parameters // 2) + scales + 4 * -(-scales // NESTED) + _TABLES + _STATE
