"""How much memory a sensitivity pass needs, and so whether a model's layers stay on the device or come one at a time, and what is left for errors.

Bytes at the peak, with P parameters, of which P0 are in no layer and P1 in the largest one, windows of T tokens and a vocabulary of V:

- weights: 4 P, computed in float32; or, streamed, 4 (P0 + P1) on the device and 2 (P - P0) at home, which a CPU counts to the same memory, though it may
  let them go, since they are mapped from the file;
- four times the largest gradient: a tied embedding's two halves, their sum, and its copy;
- three times the logits of one window, in float32: themselves, the probabilities, and the gradient that is handed back;
- activations: 4 · ACTIVATIONS · T · (hidden + feed-forward of the active experts) for each layer; streamed, for one layer, and 4 T · hidden for each other;
- the rest is for errors: one value of 4 bytes for each type of a group and each parameter in the rows that are quantized (see `rows`). The smaller the rest,
  the more groups, and the windows run for each.

So the largest model is the one for which what comes before the errors, and one error of its largest tensor, fit.
"""

import math
import resource
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil

from builders.sensitivity.table import TYPES
from config.errors import UnsupportedModel

if TYPE_CHECKING:  # the service, which reckons with these formulas, does without torch
    import torch
    from transformers import PreTrainedModel

DELTA = 4  # bytes of one value of an error
ACTIVATIONS = 6  # values kept for each token, layer, and hidden or feed-forward unit
SHARE = 0.9  # of a GPU's free memory that is used
_PASS = {False: 3, True: 4}  # what a forward and a backward pass cost, in forward passes, by whether layers are streamed


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A model, as far as memory depends on it."""

    outside: int  # parameters of no layer
    layers: tuple[int, ...]  # parameters of each layer
    largest: int  # parameters of the largest tensor, all experts together
    vocabulary: int
    hidden: int
    wide: int  # feed-forward units of the experts that one token reaches
    stored: int = 2  # bytes of a parameter at home

    @property
    def parameters(self) -> int:
        """All of them."""
        return self.outside + sum(self.layers)


@dataclass(frozen=True, kw_only=True)
class Room:
    """Where the weights are, and what is free beside them."""

    streamed: bool
    free: int  # bytes for errors


def shape(network: "PreTrainedModel", stored: "torch.dtype") -> Shape:
    """Of a network, which may be on the meta device, with weights that are stored in a dtype."""
    from engines import streaming  # torch

    about: Any = network.config.get_text_config()
    size = streaming.size(network)
    experts = int(getattr(about, "num_experts_per_tok", None) or 1)
    return Shape(
        outside=size.outside,
        layers=size.layers,
        largest=max(parameter.numel() for parameter in network.parameters()),
        vocabulary=int(about.vocab_size),
        hidden=int(about.hidden_size),
        wide=experts * int(getattr(about, "moe_intermediate_size", None) or getattr(about, "intermediate_size", None) or 4 * about.hidden_size),
        stored=stored.itemsize,
    )


def needed(model: Shape, *, context: int, streamed: bool, homes: bool) -> int:
    """Bytes at the peak without errors, in windows of `context` tokens; `homes`: streamed weights lie in the same memory, as on a CPU."""
    one = 4 * ACTIVATIONS * context * (model.hidden + model.wide)
    beside = 4 * (4 * model.largest + 3 * context * model.vocabulary)
    if not streamed:
        return 4 * model.parameters + beside + one * len(model.layers)
    at_home = model.stored * sum(model.layers) if homes else 0
    return 4 * (model.outside + max(model.layers, default=0)) + at_home + beside + one + 4 * context * model.hidden * len(model.layers)


def room(model: Shape, *, context: int, memory: int, homes: bool) -> Room:
    """The cheaper way to run the model in `memory` bytes. Raises UnsupportedModel when there is none."""
    free = {streamed: memory - needed(model, context=context, streamed=streamed, homes=homes) for streamed in (False, True)}
    least = DELTA * model.largest
    ways = [Room(streamed=streamed, free=rest) for streamed, rest in free.items() if rest >= least and (model.layers or not streamed)]
    if not ways:
        raise UnsupportedModel(
            f"The model has {model.parameters:,} parameters, so sensitivities need {memory - max(free.values()) + least:,} bytes of memory for windows of "
            f"{context} tokens, and {memory:,} are there. Use a machine with more, or a smaller context."
        )
    errors = DELTA * model.parameters * len(TYPES)
    return min(ways, key=lambda way: math.ceil(errors / way.free) * _PASS[way.streamed])


def device() -> "torch.device":
    """The one that there is."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def memory(on: "torch.device") -> int:
    """Bytes that a pass may use on a device: nearly all that is free of a GPU's; half of the machine's, or of what this process is allowed."""
    if on.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(on)[0] * SHARE)
    allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
    total = int(psutil.virtual_memory().total)
    return (total if allowed == resource.RLIM_INFINITY else min(total, allowed)) // 2
