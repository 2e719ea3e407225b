"""Measures how sensitive a model's output is to each linear layer's being stored in NF4: the table from which dynamic NF4 is planned.

A table of its own, of what bitsandbytes quantizes: modules as transformers names them, each in NF4 or in 16 bits. Experts that transformers keeps in fused
parameters are no linear layers, bitsandbytes leaves them as they are, and so they are not in it.

A sample is ⟨g, δ⟩ / √T here, with all of the Fisher information: taken from squares, as for GGUF types, plans for a tenth more bytes left 0.84 instead of 0.77
of plain NF4's divergence on one of two models, and were as good elsewhere.

Memory: as in `builders.sensitivity.room` with errors of 0.52 bytes for each value of a linear layer (NF4 itself, which is cheap to read), and one of them
written out at a time; so one pass over the windows is enough for any model.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from builders import bnb
from builders.calibrate import Windows
from builders.sensitivity import fisher, sample
from builders.sensitivity.measure import enough, opened
from builders.sensitivity.table import Mix, Sensitivity, Tensor
from config.errors import MeasurementError
from config.progress import counted
from engines import nf4

VERSION = 3  # raise when outputs change

TYPES = ("NF4", "BF16")
KEPT = (0.0, 0.05, 0.2)  # shares of the values that stay in 16 bits in the mixes by which is judged whether enough windows were measured


def measure(out: Path, *, model: Path, chat: list[Path], plain: list[Path], tokens: int, context: int, threads: int) -> dict[str, Any]:
    """Write `sensitivity.json` and `products.npy` from at most `tokens` tokens of calibration text in windows of `context`.

    Windows are added until the predicted KLD of typical mixes is known within 5 %. Returns `provider`, `windows`, `tokens`, and `relative_error` (of the worst
    of the typical mixes). Raises ConfigurationError, and MeasurementError also when no linear layer would become NF4.
    """
    # a layer's error meets its gradient window by window, where what bfloat16 takes from a gradient chose other layers, and worse ones
    with opened(model, chat, plain, tokens=tokens, context=context, threads=threads, whole=True) as (network, text, _):
        parameters = dict(network.named_parameters())
        modules = {name: parameters[f"{name}.weight"] for name in bnb.quantizable(network) if f"{name}.weight" in parameters}
        if not modules:
            raise MeasurementError(
                "bitsandbytes quantizes no layer of this model, so there is nothing to plan. Remove bnb_4bit and dynamic_bnb_4bit from the recipe's variants."
            )
        packed = {name: nf4.pack(modules[name]) for name in counted(modules, "layers")}
        tensors = tuple(Tensor(name=name, rows=weight.shape[0], columns=weight.shape[1]) for name, weight in modules.items())
        sensitivity = enough(lambda windows, first: products(network, packed, windows, first), text, tensors, TYPES, mixes)
    sensitivity.save(out)
    return {
        "provider": sensitivity.provider,
        "windows": len(sensitivity.products),
        "tokens": len(sensitivity.products) * text.shape[1],
        "relative_error": sample.relative_error(sensitivity, mixes),
    }


def products(network: PreTrainedModel, packed: Mapping[str, nf4.Packed], windows: Windows, first: int) -> fisher.Products:
    """Products (windows, modules, TYPES) of windows (n, T) that are number `first` and following. Raises MeasurementError when gradients are not finite."""
    found = np.zeros((len(windows), len(packed), len(TYPES)), dtype=np.float32)
    parameters = dict(network.named_parameters())
    window = 0

    def take(gradient: torch.Tensor, *, place: int, name: str) -> None:
        error = packed[name].values() - parameters[f"{name}.weight"].detach()
        found[window, place, 0] = float(torch.vdot(gradient.reshape(-1).float(), error.reshape(-1)))

    with fisher.gradients(network, {f"{name}.weight": partial(take, place=place, name=name) for place, name in enumerate(packed)}):
        for window, ids in enumerate(counted(windows, "windows")):
            fisher.backward(network, ids, first + window)
    if not np.isfinite(found).all():
        raise MeasurementError(fisher.NOT_FINITE)
    return found


def mixes(sensitivity: Sensitivity) -> Iterator[Mix]:
    """Everything in NF4, and the layers that 4 bits hurt most for their size kept in 16 bits, up to each of KEPT of all values."""
    sizes = np.array([tensor.parameters for tensor in sensitivity.tensors])
    order = np.argsort(-sensitivity.costs[:, 0] / sizes, kind="stable")
    share = np.cumsum(sizes[order]) / sizes.sum()
    for most in KEPT:
        kept: Sequence[int] = order[share <= most]
        yield {tensor.name: TYPES[int(place in kept)] for place, tensor in enumerate(sensitivity.tensors)}
