"""The table of sensitivities: for every tensor and type the samples from which the divergence of any mix of types is predicted.

KL(p_W || p_{W+δ}) ≈ ½ δᵀFδ with the Fisher information F = E[∇log p ∇log pᵀ] (Martens, "New insights and perspectives on the natural gradient
method", 2020). A sample is v = √(Σ g² δ² / T) over the values of a tensor: g is the gradient of one window's log-likelihood, labels drawn from the model
itself, T its tokens, and δ the error that storing one tensor in one type makes. KLD per token, in nats, is then ½ Σ E[v²].

Only F's diagonal is in it: rounding errors of different values are as good as independent, so the rest of δᵀFδ comes to nothing in the sum over a tensor,
while ⟨g, δ⟩², which has all of F, is as noisy as the square of one normal number a window. On the bundled model, 128 windows, both
agree within 8 % in every type (the geometric mean over tensors) and 12 % in every tensor (over types), while single costs differ by 18 %: the noise of ⟨g, δ⟩².

What llama.cpp rounds on top of that, the activations that enter a product, is in the table as a KLD of each tensor and type; see `activations`.

The expansion fails by the error of the whole mix: planned mixes of the bundled model come out as predicted up to 0.02 nats (0.94 to 1.00 of what is measured),
are predicted at 0.85 of it at 0.03 and at 0.66 of it at 0.05; everything in Q2_K, 0.2 nats, at 0.4.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from config.errors import MeasurementError
from engines import ggml

Mix = Mapping[str, str]
"""The type of each quantizable tensor, by the tensor's name in the GGUF: {"blk.0.attn_q.weight": "Q4_K"}."""

TYPES = (
    "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "Q2_K", "IQ3_XXS", "IQ3_S", "Q3_K", "IQ4_XS", "IQ4_NL",
    "Q4_0", "Q4_K", "Q4_1", "Q5_0", "Q5_K", "Q5_1", "Q6_K", "Q8_0", "BF16",
)  # fmt: skip
"""Every type that llama.cpp can make of a matrix and run, smallest first."""


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """One matrix of the 16-bit GGUF that may be stored in other types."""

    name: str
    rows: int  # of all experts together
    columns: int  # values that are stored one after another: blocks are cut from these
    experts: int = 1

    @property
    def parameters(self) -> int:
        """Number of values."""
        return self.rows * self.columns

    def bytes(self, type: str) -> int:
        """Size when stored in `type`, which must fit."""
        return self.rows * ggml.row_bytes(type, self.columns)

    def bpw(self, type: str) -> float:
        """Bits per weight when stored in `type`, which must fit."""
        return 8 * self.bytes(type) / self.parameters


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A predicted mean KL divergence, in nats per token."""

    mean: float
    stderr: float


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """The samples of one model: everything that planning needs to know about it."""

    provider: Literal["fisher", "probes"]
    tensors: tuple[Tensor, ...]
    types: tuple[str, ...]
    products: npt.NDArray[np.float32]  # (windows, tensors, types); NaN where the tensor cannot have the type
    systematic: float = 0.0  # relative error of the method itself, on top of the samples' (0.3 when predictions are known within 30 %)
    activations: npt.NDArray[np.float64] | None = None  # (tensors, types): predicted KLD of rounding what enters the tensor; none is known where it is None

    @cached_property
    def costs(self) -> npt.NDArray[np.float64]:
        """(tensors, types): predicted KLD when this tensor alone is stored in this type, and run by a CPU; NaN where it cannot be."""
        return self.weights if self.activations is None else self.weights + self.activations

    @cached_property
    def weights(self) -> npt.NDArray[np.float64]:
        """As `costs`, of the errors of weights alone."""
        squares: npt.NDArray[np.float64] = np.square(self.products, dtype=np.float64)
        return np.asarray(0.5 * squares.mean(axis=0))

    def allowed(self, tensor: Tensor) -> tuple[str, ...]:
        """The types that this tensor can have."""
        row = self.costs[self.tensors.index(tensor)]
        return tuple(type for type, cost in zip(self.types, row, strict=True) if not math.isnan(cost))

    def bytes(self, mix: Mix) -> int:
        """Bytes of the mix's tensors, without the rest of the file."""
        return sum(tensor.bytes(mix[tensor.name]) for tensor in self.tensors)

    def shares(self, mix: Mix) -> dict[str, float]:
        """What each tensor adds to the predicted KLD of the mix, interactions left out."""
        return {tensor.name: float(cost) for tensor, cost in zip(self.tensors, self.costs[self._chosen(mix)], strict=True)}

    def predict(self, mix: Mix) -> Estimate:
        """The mix's KLD, interactions left out, with the standard error over windows and the method's own."""
        tensors, types = self._chosen(mix)
        per_window = 0.5 * np.square(self.products[:, tensors, types], dtype=np.float64).sum(axis=1)
        mean = float(per_window.mean()) + self.rounding(mix)
        sampling = float(per_window.std(ddof=1) / math.sqrt(len(per_window))) if len(per_window) > 1 else 0.0
        return Estimate(mean=mean, stderr=math.hypot(sampling, self.systematic * mean))

    def rounding(self, mix: Mix) -> float:
        """What the rounding of activations has in the mix's KLD."""
        return 0.0 if self.activations is None else float(self.activations[self._chosen(mix)].sum())

    def _chosen(self, mix: Mix) -> tuple[npt.NDArray[np.intp], list[int]]:
        return np.arange(len(self.tensors)), [self.types.index(mix[tensor.name]) for tensor in self.tensors]

    def save(self, folder: Path) -> None:
        """Write `sensitivity.json`, `products.npy` and, where activations are known, `activations.npy`."""
        np.save(folder / "products.npy", self.products)
        if self.activations is not None:
            np.save(folder / "activations.npy", self.activations)
        described = {"provider": self.provider, "systematic": self.systematic, "types": self.types, "tensors": [asdict(tensor) for tensor in self.tensors]}
        (folder / "sensitivity.json").write_text(json.dumps(described, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Sensitivity":
        """What `save` wrote. Raises MeasurementError."""
        try:
            described = json.loads((folder / "sensitivity.json").read_text(encoding="utf-8"))
            products = np.load(folder / "products.npy")
            activations = np.load(folder / "activations.npy") if (folder / "activations.npy").exists() else None
            return cls(
                provider=described["provider"],
                systematic=described["systematic"],
                types=tuple(described["types"]),
                tensors=tuple(Tensor(**tensor) for tensor in described["tensors"]),
                products=products,
                activations=activations,
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise MeasurementError(f"The sensitivities in {folder} cannot be read: {error}. Delete the folder, so that they are measured again.") from error
