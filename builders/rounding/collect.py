"""Collects from calibration text how errors of a matrix's columns count together, for every quantizable tensor of a 16-bit GGUF.

H = E[gᵀg] with g the gradient (rows, columns) of one window's log-likelihood, labels drawn from the model: the columns' factor of the Fisher information,
averaged over rows. It weighs each token by what it does to the output, and a tied embedding is counted in both its roles. Each expert of a fused tensor has
an H of its own, as far as calibration text tells it from the experts' common one: it is drawn towards that by as much as makes its expected squared error
least (Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004), so an expert that no window reached has the common one.

Memory: 4 · columns² bytes for each H of a group beside the model and one gradient; the windows run once for each group. On disk the same, for all groups.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from builders.calibrate import Windows
from builders.rounding import sizes
from builders.sensitivity import fisher, layout
from builders.sensitivity.layout import Placement, Segment
from builders.sensitivity.measure import opened
from config.errors import MeasurementError
from config.progress import counted, within
from engines.model import Floats

VERSION = 4  # raise when outputs change

NAMES = "hessians.json"


def collect(
    out: Path,
    *,
    model: Path,
    gguf: Path,
    chat: list[Path],
    plain: list[Path],
    tokens: int,
    context: int,
    threads: int,
    imatrix: Path | None = None,
    memory: int | None = None,
) -> dict[str, Any]:
    """Write `hessians.json`, {tensor: file}, and for each tensor a file (experts or 1, columns, columns), mean diagonals 1, from windows of `context` tokens.

    Matrices that the importance matrix says nothing about have none: no text reaches them, and transformers may not load them.
    `memory` is how many bytes the H of a group may take, by default what `room` leaves beside the model.
    Returns `windows`, `tokens`, `groups` (how often the windows ran) and `unreached`: tensors without any gradient, which have no file.
    Raises ConfigurationError, MeasurementError.
    """
    files: dict[str, str] = {}
    unreached = []
    with opened(model, chat, plain, tokens=tokens, context=context, threads=threads) as (network, text, space):
        memory = space.free if memory is None else memory
        placements = layout.find(layout.quantizable(gguf, imatrix), network)
        groups = sizes.grouped([sizes.hessian_bytes(placement.tensor, memory) for placement in placements], memory)
        for turn, group in enumerate(groups):
            with within(turn * len(text), len(groups) * len(text), "windows"):
                found = _sums(network, [placements[place] for place in group], text, memory)
            for name, sums in found.items():
                if not sums.total.any():
                    unreached.append(name)
                    continue
                files[name] = f"{name}.npy"
                np.save(out / files[name], sums.hessians(len(text)))
    (out / NAMES).write_text(json.dumps(files, indent=1), encoding="utf-8")
    return {"windows": len(text), "tokens": int(text.size), "groups": len(groups), "unreached": unreached}


def load(folder: Path, name: str) -> Floats | None:
    """A tensor's H for each expert, or for all (experts or 1, columns, columns), read when it is used; None when it has none. Raises MeasurementError."""
    try:
        files = json.loads((folder / NAMES).read_text(encoding="utf-8"))
        return np.asarray(np.load(folder / files[name], mmap_mode="r"), dtype=np.float32) if name in files else None
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise MeasurementError(f"The Hessians in {folder} cannot be read: {error}. Delete the folder, so that they are measured again.") from error


@dataclass(kw_only=True)
class Sums:
    """What the windows add up to for one tensor."""

    total: torch.Tensor  # Σ gᵀg (experts or 1, columns, columns)
    squares: torch.Tensor  # (experts or 1,) Σ over windows of the squared entries of gᵀg

    def add(self, expert: int, rows: torch.Tensor) -> None:
        """One window's gradient of rows (n, columns) of an expert."""
        if len(self.total) == 1:
            self.total[0].addmm_(rows.T, rows)
            return
        product = rows.T @ rows
        self.total[expert] += product
        self.squares[expert] += product.square().sum()

    def hessians(self, windows: int) -> Floats:
        """(experts or 1, columns, columns) with mean diagonals 1, each expert's drawn towards the common one by as much as its windows differ.

        Takes the memory of the sums, which are gone.
        """
        if len(self.total) == 1:
            _scale(self.total[0])
            return self.total.cpu().numpy()
        common = self.total.sum(0)
        _scale(common)
        for own, squares in zip(self.total, self.squares.tolist(), strict=True):
            share = 1.0
            if own.any():
                scale = _scale(own)
                # how far the sum of so many independent windows may be off by chance, and how far from the common one it is: both squared
                noise = (squares / scale**2 - float(own.square().sum()) / windows) * windows / max(windows - 1, 1)
                distance = float((own - common).square().sum())
                share = min(1.0, max(0.0, noise / distance)) if distance > 0 and windows > 1 else 1.0
            own.lerp_(common, share)
        return self.total.cpu().numpy()


def _scale(hessian: torch.Tensor) -> float:
    """Give it, in place, a mean diagonal of 1; what it was."""
    mean = hessian.diagonal().mean()
    hessian /= mean
    return float(mean)


@dataclass(frozen=True, kw_only=True)
class _User:
    """Where rows of one parameter's gradient go."""

    sums: Sums
    segment: Segment
    sources: torch.Tensor
    experts: Mapping[int, torch.Tensor]  # the rows of the segment that are an expert's


def _sums(network: PreTrainedModel, group: Sequence[Placement], text: Windows, memory: int) -> dict[str, Sums]:
    """Σ gᵀg over windows, by tensor."""
    found: dict[str, Sums] = {}
    of: dict[str, list[_User]] = {}
    device = network.device
    for placement in group:
        tensor = placement.tensor
        count, columns = sizes.count(tensor, memory), tensor.columns
        sums = Sums(total=torch.zeros(count, columns, columns, device=device), squares=torch.zeros(count, device=device))
        found[tensor.name] = sums
        for segment in placement.segments:
            expert = segment.targets // (tensor.rows // count)
            experts = {int(one): torch.from_numpy(np.flatnonzero(expert == one)).to(device) for one in np.unique(expert)}
            user = _User(sums=sums, segment=segment, sources=torch.from_numpy(segment.sources).to(device), experts=experts)
            of.setdefault(segment.parameter, []).append(user)

    def take(gradient: torch.Tensor, *, users: list[_User]) -> None:
        for user in users:
            rows = layout.part(gradient, user.segment, user.sources).float()
            for expert, own in user.experts.items():
                user.sums.add(expert, rows if len(user.experts) == 1 else rows[own])

    with fisher.gradients(network, {name: partial(take, users=users) for name, users in of.items()}):
        for number, window in enumerate(counted(text, "windows")):
            fisher.backward(network, window, number)
    return found
