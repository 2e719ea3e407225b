"""How errors of a matrix's columns count together, summed up over calibration text, and the files that keep it for rounding.

H = E[gᵀg] with g the gradient (rows, columns) of one window's log-likelihood, labels drawn from the model: the columns' factor of the Fisher information,
averaged over rows. It weighs each token by what it does to the output, and a tied embedding is counted in both its roles. Each expert of a fused tensor has
an H of its own, as far as calibration text tells it from the experts' common one: it is drawn towards that by as much as makes its expected squared error
least (Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004), so an expert that no window reached has the common one.

Disk: 4 · columns² bytes for each H; memory while it is summed up: little more than half of that where columns are many (`sizes.summed_bytes`).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from builders.rounding.sizes import BLOCK, NAMES, PREFIX
from config.errors import MeasurementError
from engines.model import Floats


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
    """Write a tensor's H; the name of the file, None where no window had any gradient."""
    if not sums:
        return None
    name = f"{PREFIX}{tensor}.npy"
    file = np.lib.format.open_memmap(out / name, mode="w+", dtype=np.float32, shape=(sums.count, sums.columns, sums.columns))
    for place, hessian in enumerate(sums.hessians(windows)):
        file[place] = hessian
    file.flush()
    return name


@dataclass(frozen=True, kw_only=True)
class Sums:
    """What the windows add up to for one tensor: H is symmetric, so what lies left of its diagonal's blocks is left out."""

    columns: int
    blocks: tuple[torch.Tensor, ...]  # Σ gᵀg, BLOCK rows of it each: (experts or 1, BLOCK, columns from the block's first on); added to in place
    squares: torch.Tensor  # (experts or 1,) Σ over windows of the squared entries of gᵀg, where there are several; added to in place

    @classmethod
    def empty(cls, count: int, columns: int, device: torch.device) -> "Sums":
        """Of no window, for so many experts."""
        blocks = tuple(torch.zeros(count, min(BLOCK, columns - first), columns - first, device=device) for first in range(0, columns, BLOCK))
        return cls(columns=columns, blocks=blocks, squares=torch.zeros(count, device=device))

    @property
    def count(self) -> int:
        """How many H there are."""
        return len(self.squares)

    @property
    def bytes(self) -> int:
        """Memory of the sums."""
        return sum(block.nbytes for block in self.blocks)

    def __bool__(self) -> bool:
        """Whether any gradient was added."""
        return any(bool(block.any()) for block in self.blocks)

    def add(self, expert: int, rows: torch.Tensor) -> None:
        """One window's gradient of rows (n, columns) of an expert."""
        for number, block in enumerate(self.blocks):
            first, size = number * BLOCK, block.shape[1]
            left, right = rows[:, first : first + size].T, rows[:, first:]
            if self.count == 1:
                block[0].addmm_(left, right)
                continue
            product = left @ right
            block[expert] += product
            self.squares[expert] += product[:, :size].square().sum() + 2 * product[:, size:].square().sum()

    def hessians(self, windows: int) -> Iterator[Floats]:
        """Each expert's (columns, columns), with a mean diagonal of 1, drawn towards the common one by as much as its windows differ; or the only one."""
        common = self._whole([block.sum(0) for block in self.blocks])
        _scale(common)
        if self.count == 1:
            yield common.cpu().numpy()
            return
        for expert, squares in enumerate(self.squares.tolist()):
            own, share = self._whole([block[expert] for block in self.blocks]), 1.0
            if own.any():
                scale = _scale(own)
                # how far the sum of so many independent windows may be off by chance, and how far from the common one it is: both squared
                noise = (squares / scale**2 - float(own.square().sum()) / windows) * windows / max(windows - 1, 1)
                distance = float((own - common).square().sum())
                share = min(1.0, max(0.0, noise / distance)) if distance > 0 and windows > 1 else 1.0
            yield own.lerp_(common, share).cpu().numpy()

    def _whole(self, blocks: Sequence[torch.Tensor]) -> torch.Tensor:
        """The matrix (columns, columns) of which these are the blocks (BLOCK, columns from the first on)."""
        whole = torch.empty(self.columns, self.columns, device=self.squares.device)
        for number, block in enumerate(blocks):
            first, end = number * BLOCK, number * BLOCK + len(block)
            whole[first:end, first:] = block
            whole[end:, first:end] = block[:, end - first :].T
        return whole


def _scale(hessian: torch.Tensor) -> float:
    """Give it, in place, a mean diagonal of 1; what it was."""
    mean = hessian.diagonal().mean()
    hessian /= mean
    return float(mean)
