"""Collects from calibration text how errors of a matrix's columns count together, for every quantizable tensor of a 16-bit GGUF.

H = E[gᵀg] with g the gradient (rows, columns) of one window's log-likelihood, labels drawn from the model: the columns' factor of the Fisher information,
averaged over rows. It weighs each token by what it does to the output, and a tied embedding is counted in both its roles. All experts of a fused tensor
share one H, so an expert that calibration never reached has one too.

Memory: 4 · columns² bytes for each tensor of a group beside the model and one gradient; the windows run once for each group.
"""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from builders.sensitivity import fisher, layout
from builders.sensitivity.layout import Placement, Segment
from builders.sensitivity.measure import opened
from config.errors import MeasurementError
from engines.model import Floats

VERSION = 2  # raise when outputs change

NAMES = "hessians.json"
MEMORY = 2**33  # bytes of Hessians at a time


def collect(
    out: Path, *, model: Path, gguf: Path, chat: list[Path], plain: list[Path], tokens: int, context: int, threads: int, memory: int = MEMORY
) -> dict[str, Any]:
    """Write `hessians.json`, {tensor: file}, and for each tensor a file (columns, columns), mean diagonal 1, from windows of `context` tokens.

    Returns `windows`, `tokens`, `groups` (how often the windows ran) and `unreached`: tensors without any gradient, which have no file.
    Raises ConfigurationError, MeasurementError.
    """
    files: dict[str, str] = {}
    unreached = []
    with opened(model, chat, plain, tokens=tokens, context=context, threads=threads) as (network, text, space):
        groups = _grouped(layout.find(layout.quantizable(gguf), network), min(memory, space.free))
        for group in groups:
            for name, hessian in _hessians(network, group, text).items():
                mean = float(hessian.diagonal().mean())
                if mean == 0:
                    unreached.append(name)
                    continue
                files[name] = f"{name}.npy"
                np.save(out / files[name], hessian / np.float32(mean))
    (out / NAMES).write_text(json.dumps(files, indent=1), encoding="utf-8")
    return {"windows": len(text), "tokens": int(text.size), "groups": len(groups), "unreached": unreached}


def load(folder: Path, name: str) -> Floats | None:
    """A tensor's H (columns, columns), or None when it has none. Raises MeasurementError."""
    try:
        files = json.loads((folder / NAMES).read_text(encoding="utf-8"))
        return np.asarray(np.load(folder / files[name]), dtype=np.float32) if name in files else None
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise MeasurementError(f"The Hessians in {folder} cannot be read: {error}. Delete the folder, so that they are measured again.") from error


def _grouped(placements: Sequence[Placement], memory: int) -> list[list[Placement]]:
    """Tensors whose Hessians fit into memory together, at least one at a time, in the file's order."""
    groups: list[list[Placement]] = []
    room = 0
    for placement in placements:
        size = 4 * placement.tensor.columns**2
        if not groups or size > room:
            groups.append([])
            room = memory
        groups[-1].append(placement)
        room -= size
    return groups


def _hessians(network: PreTrainedModel, group: Sequence[Placement], text: fisher.Windows) -> dict[str, Floats]:
    """Σ gᵀg over windows, by tensor."""
    sums: dict[str, torch.Tensor] = {}
    of: dict[str, list[tuple[str, Segment, torch.Tensor]]] = {}
    for placement in group:
        columns = placement.tensor.columns
        for segment in placement.segments:
            sums[placement.tensor.name] = torch.zeros(columns, columns, device=network.device)
            of.setdefault(segment.parameter, []).append((placement.tensor.name, segment, torch.from_numpy(segment.sources).to(network.device)))

    def take(gradient: torch.Tensor, *, users: list[tuple[str, Segment, torch.Tensor]]) -> None:
        for name, segment, sources in users:
            rows = layout.part(gradient, segment, sources).float()
            sums[name].addmm_(rows.T, rows)

    with fisher.gradients(network, {name: partial(take, users=users) for name, users in of.items()}):
        for number, window in enumerate(text):
            fisher.backward(network, window, number)
    return {name: hessian.cpu().numpy() for name, hessian in sums.items()}
