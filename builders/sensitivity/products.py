"""Products of a network's matrices, seen where they are made: by `torch.nn.functional.linear`, those of experts one by one.

A product may be with some rows of a parameter only, as with one expert's of a matrix that holds all of them; it is known by the first.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import torch
from torch.nn import functional
from transformers import PreTrainedModel

Product = Callable[[str, int, torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
"""Parameter's name, its first row that is multiplied, inputs (…, columns), weight (rows, columns), bias; what `linear` returns."""

linear = functional.linear


@contextmanager
def seen(network: PreTrainedModel, parameters: Collection[str], product: Product) -> Iterator[None]:
    """While it is open, products with whole rows of these parameters are made by `product`, and all others by torch's `linear`."""
    known = {id(parameter): (name, parameter) for name, parameter in network.named_parameters() if name in parameters}

    def instead(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        name, whole = known.get(id(weight if weight._base is None else weight._base), ("", weight))
        if not name or not weight.is_contiguous() or weight.shape[-1] != whole.shape[-1]:
            return linear(inputs, weight, bias)
        return product(name, (weight.storage_offset() - whole.storage_offset()) // weight.shape[-1], inputs, weight, bias)

    experts = network.get_experts_implementation()
    network.set_experts_implementation("eager")  # one product for each expert; others put several into one operation
    # a mode of torch's would not reach the threads of a GPU's backward pass, in which streamed layers are computed once more
    functional.linear = instead  # type: ignore[assignment]
    try:
        yield
    finally:
        functional.linear = linear
        network.set_experts_implementation(experts)


def among(rows: torch.Tensor, first: int, count: int) -> slice:
    """Where in ascending `rows` those of `count` from `first` on are."""
    low, high = torch.searchsorted(rows, torch.tensor([first, first + count], device=rows.device)).tolist()
    return slice(low, high)
