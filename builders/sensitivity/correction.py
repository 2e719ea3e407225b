"""Corrects the table where errors are too large for a second-order expansion: small types' real divergence, measured on a few windows.

The expansion holds while an answer changes little. Below three bits the divergence grows faster than the square of the error, for some types faster than for
others, so that a plan would choose wrongly between them. Each type of fewer than BITS bits is therefore tried twice in the network itself: all of the embedding
and output matrices in it, then all other tensors in it. The ratio of measured to predicted divergence, drawn towards 1 by what is not known about it,
multiplies what the table predicts for this type in this group.
Not covered: large errors of both groups at once are worse than their sum, by a factor of about two when everything is stored in two bits.

Memory, in bytes, on top of a pass's: the model once more, 4 for each of PROBES · T · vocabulary log-probabilities, and one tensor's errors in one type.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from builders.sensitivity import fisher
from builders.sensitivity.layout import Placement, Segment, matrix
from builders.sensitivity.sample import bpw
from builders.sensitivity.table import TYPES, Estimate, Sensitivity

BITS = 4.0  # types with fewer bits per weight are probed: from there up, prediction and measurement agree within their errors
PROBES = 16  # windows
SPREAD = 0.5  # standard deviation of the logarithm of factors, before anything is measured
LEAST = 0.5  # factors are not below it: the expansion errs upwards, and a lucky draw must not make a small type look harmless


@dataclass(frozen=True, kw_only=True)
class Corrected:
    """The corrected table, and by what it was corrected."""

    sensitivity: Sensitivity
    factors: dict[str, dict[str, float]]  # by type and group ("embedding", "rest"): of the predicted KLD


def correct(job: fisher.Pass, sensitivity: Sensitivity, text: fisher.Windows) -> Corrected:
    """The table of this pass with the products of small types multiplied by the roots of their factors, from the first PROBES windows of text (n, T).

    The network's weights are changed meanwhile, and are the same as before when this returns or raises.
    """
    windows = text[:PROBES]
    before = [_log_probabilities(job.network, window) for window in windows]
    products = sensitivity.products.copy()
    factors: dict[str, dict[str, float]] = {}
    for column, type in enumerate(TYPES):
        for group, members in _groups(job).items():
            tensors = [i for i in members if column in fisher.possible(sensitivity.tensors[i], job.importances) and bpw(type, sensitivity.tensors[i]) < BITS]
            if not tensors:
                continue
            with stored_in(job, tensors, column):
                measured = _divergence(job.network, windows, before)
            predicted = _estimate(torch.from_numpy(sensitivity.products[:, tensors, column]).double().square().sum(dim=1) / 2)
            factor = shrunk(measured, predicted)
            factors.setdefault(type, {})[group] = factor
            products[:, tensors, column] *= math.sqrt(factor)
    return Corrected(sensitivity=replace(sensitivity, products=products), factors=factors)


def shrunk(measured: Estimate, predicted: Estimate) -> float:
    """The factor of largest posterior density: its logarithm is normal around 0 with SPREAD, the ratio's has the error that both estimates give it."""
    if measured.mean <= 0 or predicted.mean <= 0:
        return 1.0
    ratio = math.log(measured.mean / predicted.mean)
    variance = (measured.stderr / measured.mean) ** 2 + (predicted.stderr / predicted.mean) ** 2
    return max(LEAST, math.exp(ratio * SPREAD**2 / (SPREAD**2 + variance)))


@contextmanager
def stored_in(job: fisher.Pass, tensors: Sequence[int], type: int) -> Iterator[None]:
    """While it is open, these tensors (places among the pass's) have the values that storing them in the type (place in TYPES) leaves.

    Afterwards every bit is as it was.
    """
    parameters = dict(job.network.named_parameters())
    names = {segment.parameter for i in tensors for segment in job.placements[i].segments}
    originals = {name: parameters[name].detach().clone() for name in names}
    try:
        for i in tensors:
            for segment, error in _held(job, i, type) or _quantized(job, i, type):
                add(parameters[segment.parameter], segment, error)
        yield
    finally:
        with torch.no_grad():
            for name, original in originals.items():
                parameters[name].copy_(original)


def add(parameter: torch.Tensor, segment: Segment, error: torch.Tensor) -> None:
    """Add an error (rows of the segment, columns), in the order of its sources, to a parameter in place."""
    with torch.no_grad():
        rows = matrix(parameter, transposed=segment.transposed).clone()
        rows[torch.from_numpy(segment.sources).to(rows.device)] += error.reshape(len(segment.sources), -1).to(rows)
        turned = parameter.transpose(-1, -2) if segment.transposed else parameter
        turned.copy_(rows.reshape(turned.shape))  # a view: the parameter itself is changed


def _held(job: fisher.Pass, tensor: int, type: int) -> list[tuple[Segment, torch.Tensor]]:
    """The errors of a tensor in a type that the pass still holds; an empty list when it does not."""
    tasks = job.held[0][1] if job.held else []
    return [(task.segment, task.delta[task.types.index(type)]) for task in tasks if task.tensor == tensor and type in task.types]


def _quantized(job: fisher.Pass, tensor: int, type: int) -> list[tuple[Segment, torch.Tensor]]:
    placement = job.placements[tensor]
    values = fisher.values_of(job.stored[tensor], placement.tensor)
    error = fisher.error_of(values, TYPES[type], placement.tensor, job.importances.get(placement.tensor.name))
    return [(segment, torch.from_numpy(error[segment.targets])) for segment in placement.segments]


def _groups(job: fisher.Pass) -> dict[str, list[int]]:
    """Places of the tensors that are the embedding or the output matrix, and of all others."""
    heads = job.network.get_input_embeddings(), job.network.get_output_embeddings()  # type: ignore[no-untyped-call]
    ends = [head.weight for head in heads if head is not None]
    parameters = dict(job.network.named_parameters())

    def outer(placement: Placement) -> bool:
        return any(parameters[segment.parameter] is end for segment in placement.segments for end in ends)

    groups: dict[str, list[int]] = {"embedding": [], "rest": []}
    for i, placement in enumerate(job.placements):
        groups["embedding" if outer(placement) else "rest"].append(i)
    return groups


def _log_probabilities(network: torch.nn.Module, window: fisher.Window) -> torch.Tensor:
    """(T, vocabulary)."""
    with torch.inference_mode():
        ids = torch.from_numpy(window)[None].to(next(network.parameters()).device)
        logits: torch.Tensor = network(input_ids=ids, use_cache=False).logits[0]
        return logits.float().log_softmax(-1)


def _divergence(network: torch.nn.Module, windows: fisher.Windows, before: Sequence[torch.Tensor]) -> Estimate:
    """KL(before || now) per token."""
    each = []
    for window, reference in zip(windows, before, strict=True):
        now = _log_probabilities(network, window)
        each.append(float((reference.exp() * (reference - now)).sum(-1).double().mean()))
    return _estimate(torch.tensor(each, dtype=torch.float64))


def _estimate(each: torch.Tensor) -> Estimate:
    """Mean and standard error of independent samples; nothing is known from a single one."""
    return Estimate(mean=float(each.mean()), stderr=float(each.std() / math.sqrt(len(each))) if len(each) > 1 else math.inf)
