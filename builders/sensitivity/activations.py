"""Weighs the rounding of activations: llama.cpp's CPU kernels round what enters a product with a quantized matrix to 8 bits, in blocks that its type decides.

For K types, and all IQ types but IQ4_NL, one scale serves 256 activations, for the others 32, so the former round several times as coarsely. What that costs
comes from the same Fisher information as in `table`, taken where activations enter: KLD per token ≈ ½ Σ E[h² ε² / T], with h the gradient of a window's
log-likelihood with respect to the inputs of this one product, and ε what rounding adds to them.

The first windows of the pass that sums up gradients of weights (`gather`) tell it on their way. Products by `torch.nn.functional.linear` are seen, those of
experts included; a matrix that a model uses otherwise counts as rounding nothing. That matrices share their rounded inputs is left out, as all interactions
are.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from builders.sensitivity import fisher, products
from builders.sensitivity.layout import Placement
from builders.sensitivity.table import TYPES
from config.errors import MeasurementError
from engines import ggml

Costs = npt.NDArray[np.float64]  # (tensors, TYPES)


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """What windows add up to for each of the placements, in their order."""

    network: PreTrainedModel
    users: Mapping[str, Sequence["_User"]]  # by the parameter
    sums: Sequence[torch.Tensor]  # Σ h² ε² for each of ggml.ACTIVATIONS; added to in place

    @classmethod
    def of(cls, network: PreTrainedModel, placements: Sequence[Placement]) -> "Rounding":
        """Of no window."""
        users: dict[str, list[_User]] = {}
        sums = [torch.zeros(len(ggml.ACTIVATIONS), dtype=torch.float64, device=network.device) for _ in placements]
        for placement, total in zip(placements, sums, strict=True):
            for segment in placement.segments:
                if not segment.transposed:
                    users.setdefault(segment.parameter, []).append(_User(total=total, rows=torch.from_numpy(segment.sources).to(network.device)))
        return cls(network=network, users=users, sums=sums)

    def costs(self, windows: int) -> Costs:
        """Predicted KLD, in nats per token, of rounding what enters each tensor as each of TYPES does, when so many windows were watched.

        Raises MeasurementError when gradients were not finite.
        """
        found = 0.5 * torch.stack(list(self.sums)).cpu().numpy() / windows
        if not np.isfinite(found).all():
            raise MeasurementError(fisher.NOT_FINITE)
        costs = np.zeros((len(self.sums), len(TYPES)))
        for column, type in enumerate(TYPES):
            if (block := ggml.activation_block(type)) is not None:
                costs[:, column] = found[:, ggml.ACTIVATIONS.index(block)]
        return costs

    @contextmanager
    def watched(self) -> Iterator[None]:
        """While it is open, backward passes add to the sums: they run through `_Product` wherever a matrix has users."""

        def product(name: str, first: int, inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
            return _Product.apply(inputs, weight, bias, first, self.users[name])  # type: ignore[no-any-return, no-untyped-call]

        self.network.enable_input_require_grads()  # type: ignore[no-untyped-call]
        try:
            with products.seen(self.network, self.users, product):
                yield
        finally:
            self.network.disable_input_require_grads()  # type: ignore[no-untyped-call]


def rounded(values: torch.Tensor, block: int) -> torch.Tensor:
    """Values (…, columns) as llama.cpp's 8 bits give them back, in blocks of 256 (Q8_K, scales in float32) or 32 (Q8_0, scales in float16)."""
    parts = values.reshape(-1, block)
    scale = parts.abs().amax(-1, keepdim=True) / 127
    steps = torch.where(scale > 0, parts / scale, 0).round()
    return (steps * (scale.half().to(scale.dtype) if block == 32 else scale)).reshape(values.shape)


@dataclass(frozen=True, kw_only=True)
class _User:
    """The rows of a parameter that are one tensor's."""

    total: torch.Tensor  # Σ h² ε² for each of ggml.ACTIVATIONS; added to in place
    rows: torch.Tensor  # ascending

    def among(self, first: int, count: int) -> torch.Tensor:
        """Which of `count` rows from `first` on are the tensor's."""
        return self.rows[products.among(self.rows, first, count)] - first


class _Product(torch.autograd.Function):
    """`linear` that in its backward pass adds Σ h² ε² to the totals of those who use rows of its matrix; a bias gets no gradient."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, first: int, users: Sequence[_User]) -> torch.Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.first, ctx.users = first, users
        return products.linear(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, *given: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, None, None, None]:
        inputs, weight = ctx.saved_tensors
        own_gradient = given[0].flatten(0, -2).T @ inputs.flatten(0, -2) if ctx.needs_input_grad[1] else None
        gradient = given[0] @ weight
        squares = [torch.zeros(()) if inputs.shape[-1] % block else (rounded(inputs.float(), block) - inputs).square() for block in ggml.ACTIVATIONS]
        for user in ctx.users:
            rows = user.among(ctx.first, len(weight))
            if len(rows):
                own = gradient if len(rows) == len(weight) else given[0][..., rows] @ weight[rows]
                own = own.float().square()
                user.total.add_(torch.stack([(own * square).sum(dtype=torch.float64) for square in squares]))
        return gradient, own_gradient, None, None, None
