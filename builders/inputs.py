"""The importance matrix by transformers, for a GPU, which llama.cpp's programs here do not use: what llama-imatrix sums up of the same windows.

Σ x² for each column of what enters each matrix, and how many tokens; for each expert those that reach it. Matrices are known by `builders.sensitivity.layout`,
products by `torch.nn.functional.linear`. Where a matrix that llama-quantize wants importances of is not seen so, there is none for any.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from builders import calibrate
from builders.calibrate import Windows
from builders.sensitivity import importances, layout, products
from builders.sensitivity.layout import Placement
from builders.sensitivity.measure import opened
from config.errors import UnsupportedModel
from config.progress import counted
from engines import quantizable


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

    def product(name: str, first: int, inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        squares = inputs.reshape(-1, inputs.shape[-1]).float().square().sum(0, dtype=torch.float64)
        for user in users[name]:
            user.add(first, len(weight), squares, inputs.numel() // inputs.shape[-1])
        return products.linear(inputs, weight, bias)

    with products.seen(network, users, product), torch.inference_mode():
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
        for expert in self.experts[products.among(self.rows, first, count)].tolist():
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
