"""How much memory a pass over calibration text needs, and so whether a model's layers stay on the device or come one at a time, and what is left for sums.

Bytes at the peak, with P parameters, of which P0 are in no layer and P1 in the largest one, computed in b bytes (2 on a GPU
where the weights are bfloat16, else 4), windows of T tokens and a vocabulary of V:

- weights: b P; or, streamed, b (P0 + P1) on the device and 2 (P - P0) at home, which a CPU counts to the same memory, though it may let them go, since they
  are mapped from the file;
- the largest gradient: 3 b for each of its values, since a tied embedding has two halves and their sum, and 4, since its squares are summed up in float32;
- three times the logits of one window, in float32: themselves, the probabilities, and the gradient that is handed back;
- activations: b · ACTIVATIONS · T · (hidden + feed-forward of the active experts) for each layer; streamed, for one layer, and b T · hidden for each other;
- the rest is for what is summed up: SAMPLED bytes for each value of the rows that stand for a tensor (see `rows`), and those of its Hessians
  (`sizes.summed_bytes`). What does not fit comes in groups of tensors, and the windows run for each.

So the largest model is the one for which what comes before the sums, and those of its largest tensor, fit.
"""

import math
import resource
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil

from builders.rounding import sizes
from builders.sensitivity import rows
from builders.sensitivity.table import Tensor
from config.errors import UnsupportedModel

if TYPE_CHECKING:  # the service, which reckons with these formulas, does without torch
    import torch
    from transformers import PreTrainedModel

SAMPLED = 4  # bytes of one value of a sum of squares
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
    width: int = 4  # bytes of a parameter at work

    @property
    def parameters(self) -> int:
        """All of them."""
        return self.outside + sum(self.layers)


@dataclass(frozen=True, kw_only=True)
class Room:
    """Where the weights are, and what is free beside them."""

    streamed: bool
    free: int  # bytes for sums


def working(stored: "torch.dtype", on: "torch.device") -> "torch.dtype":
    """The dtype in which passes are computed: on a GPU bfloat16 where the weights are stored so, else float32. Sums over windows and rows are always float32.

    Processors that multiply bfloat16 take half the time by it too. Not used: NF4 of the bundled model kept worse layers in 16 bits then, with a KLD of 0.0077
    at the larger budget where passes in float32 give 0.0065.
    """
    import torch

    return torch.bfloat16 if stored == torch.bfloat16 and on.type == "cuda" else torch.float32


def shape(network: "PreTrainedModel", stored: "torch.dtype", at_work: "torch.dtype") -> Shape:
    """Of a network, which may be on the meta device, with weights that are stored in one dtype and computed in another."""
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
        width=at_work.itemsize,
    )


def needed(model: Shape, *, context: int, streamed: bool, homes: bool) -> int:
    """Bytes at the peak without sums, in windows of `context` tokens; `homes`: streamed weights lie in the same memory, as on a CPU."""
    one = model.width * ACTIVATIONS * context * (model.hidden + model.wide)
    beside = (3 * model.width + 4) * model.largest + 12 * context * model.vocabulary
    if not streamed:
        return model.width * model.parameters + beside + one * len(model.layers)
    at_home = model.stored * sum(model.layers) if homes else 0
    layers = model.width * (model.outside + max(model.layers, default=0))
    return layers + at_home + beside + one + model.width * context * model.hidden * len(model.layers)


def room(model: Shape, *, context: int, memory: int, homes: bool, sums: int = 0) -> Room:
    """The cheaper way to run the model in `memory` bytes, of which `sums` would hold all that is summed up. Raises UnsupportedModel when there is none."""
    free = {streamed: memory - needed(model, context=context, streamed=streamed, homes=homes) for streamed in (False, True)}
    least = SAMPLED * model.largest
    ways = [Room(streamed=streamed, free=rest) for streamed, rest in free.items() if rest >= least and (model.layers or not streamed)]
    if not ways:
        raise UnsupportedModel(
            f"The model has {model.parameters:,} parameters, so sensitivities need {memory - max(free.values()) + least:,} bytes of memory for windows of "
            f"{context} tokens, and {memory:,} are there. Use a machine with more, or a smaller context."
        )
    return min(ways, key=lambda way: math.ceil(sums / way.free) * _PASS[way.streamed])


def held(tensor: Tensor, memory: int, *, rounding: bool) -> int:
    """Bytes of what is summed up for a tensor, where `memory` is there for a group."""
    return SAMPLED * rows.most(tensor) * tensor.columns + (sizes.summed_bytes(tensor, memory) if rounding else 0)


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
