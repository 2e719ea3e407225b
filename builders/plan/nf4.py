"""Dynamic NF4: which linear layers stay in 16 bits within a byte budget, by the same program with two choices for each module.

The table is a `Sensitivity` whose types are ("NF4", "BF16") and whose tensors are named as transformers names the modules ("model.layers.0.mlp.down_proj"):
its products are of each module's gradient and `engines.nf4.roundtrip(weight) - weight`, and zero for BF16.
"""

import numpy as np

from builders.plan import knapsack
from builders.sensitivity.table import Sensitivity
from config.errors import ConfigurationError
from engines import nf4

TYPES = ("NF4", "BF16")


def skip(sensitivity: Sensitivity, *, capacity: int) -> list[str]:
    """The modules to keep in 16 bits, such that all modules of the table take at most `capacity` bytes: what `builders.bnb.quantize` takes as `skip`.

    Raises ConfigurationError when the table is of other types, or when not even NF4 throughout fits.
    """
    if sensitivity.types != TYPES:
        raise ConfigurationError(f"A plan of NF4 needs sensitivities of the types {', '.join(TYPES)}; given are {', '.join(sensitivity.types)}.")
    sizes = [tensor.parameters for tensor in sensitivity.tensors]
    items = [
        knapsack.Item(weights=np.array([nf4.stored_bytes(size), 2 * size], dtype=np.int64), costs=costs)
        for size, costs in zip(sizes, sensitivity.costs, strict=True)
    ]
    chosen = knapsack.pack(items, capacity).chosen
    return [tensor.name for tensor, choice in zip(sensitivity.tensors, chosen, strict=True) if TYPES[choice] == "BF16"]
