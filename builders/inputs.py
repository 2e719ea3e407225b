"""The importance matrix by transformers, for a GPU, which llama.cpp's programs here do not use: what llama-imatrix sums up of the same windows.

Σ x² for each column of what enters each matrix, and how many tokens; for each expert those that reach it. Matrices are known by `builders.sensitivity.layout`,
products by `torch.nn.functional.linear`. Where a matrix that llama-quantize wants importances of is not seen so, there is none for any.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import PreTrainedModel

from builders import calibrate
from builders.calibrate import Windows
from builders.sensitivity import importances, layout
from builders.sensitivity.layout import Placement
from builders.sensitivity.measure import opened
from config.errors import UnsupportedModel
from config.progress import counted
from engines import quantizable

_linear = functional.linear


def imatrix(out: Path, *, model: Path, gguf: Path, chat: Sequence[Path], plain: Sequence[Path], tokens: int, context: int, threads: int) -> dict[str, Any]:
    """Write `imatrix.gguf` as `calibrate.imatrix` does, from the model's folder.

    Raises what that does, and UnsupportedModel where transformers cannot run the model here, or does not show what enters each of its matrices.
    """
    with opened(model, chat, plain, tokens=tokens, context=context, threads=threads) as (network, text, _):
        placements = layout.find([tensor for tensor in layout.quantizable(gguf) if tensor.name.startswith(quantizable.BLOCK)], network)
        entries = sums(network, placements, text)
    if text.shape[1] != context:
        raise UnsupportedModel(f"The model holds {text.shape[1]} tokens at once, and windows have {context}.")
    about = importances.About(datasets=(calibrate.TEXT,), chunks=len(text), size=context)
    importances.write(out / calibrate.RESULT, entries, about)
    return {"file": calibrate.RESULT, "tokens": int(text.size), "chunks": len(text)}


def sums(network: PreTrainedModel, placements: Sequence[Placement], text: Windows) -> dict[str, importances.Entry]:
    """The entries by tensor, from windows (n, T). Raises UnsupportedModel when no token of them is seen to enter a tensor."""
    totals = [_Total.of(placement, network.device) for placement in placements]
    users: dict[str, list[_User]] = {}
    for placement, total in zip(placements, totals, strict=True):
        for user in _users(placement, total, network.device):
            users.setdefault(user.parameter, []).append(user)
    with _watched(network, users), torch.inference_mode():
        for window in counted(text, "chunks"):
            network(input_ids=torch.from_numpy(window)[None].to(network.device), use_cache=False, logits_to_keep=1)
    for placement, total in zip(placements, totals, strict=True):
        if not total.counts.any():
            raise UnsupportedModel(f"transformers does not show what enters {placement.tensor.name}.")
    return {placement.tensor.name: total.entry for placement, total in zip(placements, totals, strict=True)}


@dataclass(frozen=True, kw_only=True)
class _Total:
    """What enters a tensor, added to in place."""

    sums: torch.Tensor  # (experts, columns), float64
    counts: torch.Tensor  # (experts,), float64

    @classmethod
    def of(cls, placement: Placement, device: torch.device) -> "_Total":
        experts, columns = placement.tensor.experts, placement.tensor.columns
        return cls(sums=torch.zeros(experts, columns, dtype=torch.float64, device=device), counts=torch.zeros(experts, dtype=torch.float64, device=device))

    @property
    def entry(self) -> importances.Entry:
        return importances.Entry(sums=self.sums.cpu().numpy(), counts=self.counts.cpu().numpy())


@dataclass(frozen=True, kw_only=True)
class _User:
    """The first row that a parameter has of each of a tensor's experts: what enters it enters all rows of the expert."""

    parameter: str
    total: _Total
    rows: torch.Tensor  # of the parameter, ascending
    experts: torch.Tensor

    def add(self, first: int, count: int, squares: torch.Tensor, tokens: int) -> None:
        """A product with `count` rows of the parameter from `first` on."""
        low, high = torch.searchsorted(self.rows, torch.tensor([first, first + count], device=self.rows.device)).tolist()
        for expert in self.experts[low:high].tolist():
            self.total.sums[expert] += squares
            self.total.counts[expert] += tokens


def _users(placement: Placement, total: _Total, device: torch.device) -> Iterator[_User]:
    """Of each expert one row: where a tensor's rows are those of several parameters, the same tokens enter all of them."""
    seen = set[int]()
    for segment in placement.segments:
        if segment.transposed:
            raise UnsupportedModel(f"{placement.tensor.name} is turned in transformers, which does not show what enters it.")
        experts, places = np.unique(segment.targets // (placement.tensor.rows // placement.tensor.experts), return_index=True)
        new = [place for expert, place in zip(experts.tolist(), places.tolist(), strict=True) if expert not in seen]
        seen |= set(experts.tolist())
        rows = np.sort(segment.sources[new])
        of = segment.targets[np.searchsorted(segment.sources, rows)] // (placement.tensor.rows // placement.tensor.experts)
        yield _User(parameter=segment.parameter, total=total, rows=torch.from_numpy(rows).to(device), experts=torch.from_numpy(of).to(device))


@contextmanager
def _watched(network: PreTrainedModel, users: dict[str, list[_User]]) -> Iterator[None]:
    """While it is open, what enters products with matrices that have users is added to their totals."""
    known = {id(parameter): (parameter, users[name]) for name, parameter in network.named_parameters() if name in users}

    def linear(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        whole, wanted = known.get(id(weight if weight._base is None else weight._base), (weight, []))
        if wanted and weight.is_contiguous() and weight.shape[-1] == whole.shape[-1]:
            first = (weight.storage_offset() - whole.storage_offset()) // weight.shape[-1]
            squares = inputs.reshape(-1, inputs.shape[-1]).float().square().sum(0, dtype=torch.float64)
            for user in wanted:
                user.add(first, weight.shape[0], squares, inputs.numel() // inputs.shape[-1])
        return _linear(inputs, weight, bias)

    experts = network.get_experts_implementation()
    network.set_experts_implementation("eager")  # one product for each expert; others put several into one operation
    functional.linear = linear  # type: ignore[assignment]
    try:
        yield
    finally:
        functional.linear = _linear
        network.set_experts_implementation(experts)
