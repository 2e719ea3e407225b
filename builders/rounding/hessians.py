"""How errors of a matrix's columns count together, summed up over calibration text, and the files that keep it for rounding.

H = E[gᵀg] with g the gradient (rows, columns) of one window's log-likelihood, labels drawn from the model: the columns' factor of the Fisher information,
averaged over rows. It weighs each token by what it does to the output, and a tied embedding is counted in both its roles. Each expert of a fused tensor has
an H of its own, as far as calibration text tells it from the experts' common one: it is drawn towards that by as much as makes its expected squared error
least (Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004), so an expert that no window reached has the common one.

Memory and disk: 4 · columns² bytes for each H.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from builders.rounding.sizes import NAMES, PREFIX
from config.errors import MeasurementError
from engines.model import Floats

_BLOCK = 256  # columns of H that are summed up together: of those to the left of them, H is known already


def save(out: Path, names: Mapping[str, str]) -> None:
    """Write `hessians.json`, {tensor: file}."""
    (out / NAMES).write_text(json.dumps(names, indent=1), encoding="utf-8")


def load(folder: Path, name: str) -> Floats | None:
    """A tensor's H for each expert, or for all (experts or 1, columns, columns), read when it is used; None when it has none. Raises MeasurementError."""
    try:
        files = json.loads((folder / NAMES).read_text(encoding="utf-8"))
        return np.asarray(np.load(folder / files[name], mmap_mode="r"), dtype=np.float32) if name in files else None
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise MeasurementError(f"The Hessians in {folder} cannot be read: {error}. Delete the folder, so that they are measured again.") from error


def write(out: Path, tensor: str, sums: "Sums", windows: int) -> str | None:
    """Write a tensor's H, whose sums are gone; the name of the file, None where no window had any gradient."""
    if not sums.total.any():
        return None
    name = f"{PREFIX}{tensor}.npy"
    np.save(out / name, sums.hessians(windows))
    return name


@dataclass(kw_only=True)
class Sums:
    """What the windows add up to for one tensor."""

    total: torch.Tensor  # Σ gᵀg (experts or 1, columns, columns); below the blocks on its diagonal nothing until `hessians`
    squares: torch.Tensor  # (experts or 1,) Σ over windows of the squared entries of gᵀg

    def add(self, expert: int, rows: torch.Tensor) -> None:
        """One window's gradient of rows (n, columns) of an expert."""
        if len(self.total) == 1:
            _add(self.total[0], rows)
            return
        product = torch.zeros_like(self.total[expert])
        _add(product, rows)
        self.total[expert] += product
        self.squares[expert] += 2 * product.triu(1).square().sum() + product.diagonal().square().sum()

    def hessians(self, windows: int) -> Floats:
        """(experts or 1, columns, columns) with mean diagonals 1, each expert's drawn towards the common one by as much as its windows differ.

        Takes the memory of the sums, which are gone.
        """
        for own in self.total:
            _mirror(own)
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


def _add(total: torch.Tensor, rows: torch.Tensor) -> None:
    """Add gᵀg on and above the diagonal: it is symmetric, and half of the products are saved."""
    for first in range(0, rows.shape[1], _BLOCK):
        total[first : first + _BLOCK, first:].addmm_(rows[:, first : first + _BLOCK].T, rows[:, first:])


def _mirror(total: torch.Tensor) -> None:
    for first in range(0, len(total), _BLOCK):
        end = first + _BLOCK
        total[end:, first:end] = total[first:end, end:].T


def _scale(hessian: torch.Tensor) -> float:
    """Give it, in place, a mean diagonal of 1; what it was."""
    mean = hessian.diagonal().mean()
    hessian /= mean
    return float(mean)
