"""What gguf's reader makes of a GGUF file: its tensors, and the beginning of each dequantized."""

from collections.abc import Mapping
from typing import Any

from told import answered


def read(request: Mapping[str, Any]) -> dict[str, Any]:
    """What it says of a request."""
    import numpy as np
    from gguf import GGUFReader
    from gguf.quants import dequantize

    tensors = []
    for tensor in GGUFReader(request["file"]).tensors:
        rows = np.atleast_2d(tensor.data.reshape(-1, tensor.data.shape[-1]))[: request["rows"]]
        values = dequantize(rows, tensor.tensor_type).astype(np.float32)
        tensors.append({"name": tensor.name, "type": tensor.tensor_type.name, "values": int(tensor.n_elements), "rows": values.tobytes().hex()})
    return {"tensors": tensors}


if __name__ == "__main__":
    answered(read)
