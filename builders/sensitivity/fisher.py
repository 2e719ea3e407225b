"""One backward pass: the gradient of a window's log-likelihood, with labels drawn from the model's own distribution."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from config.errors import UnsupportedModel

LABELS = 1  # seed of the labels
NOT_FINITE = "Gradients are not finite, so no sensitivity is known. Look at the upstream weights."
_ROWS = 2**21  # probabilities summed up at a time when labels are drawn

Products = npt.NDArray[np.float32]  # (windows, tensors, types)
Window = npt.NDArray[np.int64]  # (T,)


@contextmanager
def gradients(network: torch.nn.Module, takers: Mapping[str, Callable[[torch.Tensor], None]]) -> Iterator[None]:
    """While it is open, a backward pass hands the gradient of each parameter in `takers` to its function when it is complete, and keeps none."""

    def hand_over(parameter: torch.Tensor, *, take: Callable[[torch.Tensor], None]) -> None:
        gradient, parameter.grad = parameter.grad, None
        if gradient is not None:
            take(gradient)

    hooks = []
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in takers)
        if name in takers:
            hooks.append(parameter.register_post_accumulate_grad_hook(partial(hand_over, take=takers[name])))  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for parameter in network.parameters():
            parameter.requires_grad_(True)


def backward(network: PreTrainedModel, window: Window, number: int) -> None:
    """One pass: the gradient of Σ_t log p(y_t | x_<=t) / √T with labels y drawn from p. With respect to logits it is onehot(y) - p.

    Raises UnsupportedModel when the network has no backward pass.
    """
    ids = torch.from_numpy(window)[None].to(network.device)
    logits = network(input_ids=ids, use_cache=False).logits
    with torch.no_grad():
        seed = logits[0].float().softmax(-1)
        labels = _drawn(seed, np.random.default_rng([LABELS, number]).random(len(window)))
        seed.neg_()
        seed[torch.arange(len(window), device=seed.device), labels] += 1
        seed /= len(window) ** 0.5
    if not logits.requires_grad:
        raise UnsupportedModel("transformers has no backward pass for this model: its logits have no gradient.")
    try:
        logits.backward(gradient=seed[None].to(logits.dtype))
    except NotImplementedError as error:
        raise UnsupportedModel(f"transformers has no backward pass for this model: {error}.") from error


def _drawn(probabilities: torch.Tensor, uniform: npt.NDArray[np.float64]) -> torch.Tensor:
    """One label for each row of probabilities (T, vocabulary), by the inverse of the distribution function at a number in [0, 1)."""
    count, vocabulary = probabilities.shape
    at = torch.from_numpy(uniform).to(probabilities.device)[:, None]
    step = max(1, _ROWS // vocabulary)
    drawn = []
    for first in range(0, count, step):
        sums = probabilities[first : first + step].double().cumsum(-1)
        drawn.append(torch.searchsorted(sums, at[first : first + step] * sums[:, -1:], right=True)[:, 0].clamp(max=vocabulary - 1))
    return torch.cat(drawn)
