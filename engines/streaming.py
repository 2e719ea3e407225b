"""Runs a transformers model whose layers do not fit into memory: each layer's weights come to the device, in the dtype of the work, only while it works.

At home, in the host's memory, they stay in the 16 bits they are stored in: every figure is what the whole model in that dtype would give.
A backward pass computes each layer once more (gradient checkpointing): a third more operations, and activations of one layer at a time.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer


@dataclass(frozen=True, kw_only=True)
class Size:
    """Parameters of a network, as far as memory depends on them."""

    outside: int  # of no layer: embeddings, output, last norm; at work all the time
    layers: tuple[int, ...]


def size(network: torch.nn.Module) -> Size:
    """What the network's parts hold; works on the meta device too."""
    parts = tuple(sum(parameter.numel() for parameter in layer.parameters()) for layer in layers(network))
    return Size(outside=sum(parameter.numel() for parameter in network.parameters()) - sum(parts), layers=parts)


def layers(network: torch.nn.Module) -> list[GradientCheckpointingLayer]:
    """The layers that can come and go, in the order of the modules: those that transformers can compute anew in a backward pass."""
    return [module for module in network.modules() if isinstance(module, GradientCheckpointingLayer)]


def stream(network: PreTrainedModel, device: torch.device, buffers: Mapping[str, torch.Tensor], dtype: torch.dtype = torch.float32) -> None:
    """Keep the layers where and as they are, and bring each to `device` while it works, in `dtype`; all else goes to `device`, in that dtype, at once.

    `buffers` are what a network made in `dtype` has, by name: in float32 those of one made in 16 bits (a scale of embeddings, say) would be rounded. In a
    backward pass a parameter's gradient is on the device, in `dtype`, and has to be taken before the layer leaves: by a hook.
    """
    stage, coming = _Stage(device=device, dtype=dtype), layers(network)
    inside = {id(tensor) for layer in coming for tensor in layer.parameters()}
    for parameter in network.parameters():
        if id(parameter) not in inside:
            parameter.data = parameter.data.to(device, dtype)
    for name, buffer in buffers.items():
        owner, _, own = name.rpartition(".")
        setattr(network.get_submodule(owner), own, buffer.to(device))
    for layer in coming:
        layer.training = True  # of this module alone, no dropout below it: transformers computes nothing anew in a layer that does not train
        layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = stage.of(layer)  # type: ignore[assignment] # no attribute of its class, only of the instance


@dataclass(kw_only=True)
class _Stage:
    """The device, which holds one layer at a time."""

    device: torch.device
    dtype: torch.dtype
    homes: list[tuple[torch.nn.Parameter, torch.Tensor]] = field(default_factory=list)  # of the layer that is at work

    def of(self, layer: torch.nn.Module) -> Callable[..., Any]:
        """What computes the layer, now and once more in the backward pass."""

        def checkpointed(run: Callable[..., Any], *args: Any) -> Any:
            def perform(*given: Any) -> Any:
                self.enter(layer)
                return run(*given)

            return checkpoint(perform, *args, use_reentrant=False)

        return checkpointed

    def enter(self, layer: torch.nn.Module) -> None:
        """Send the last layer home, and bring this one."""
        for parameter, home in self.homes:
            parameter.data = home  # nothing has changed the copy
        self.homes = [(parameter, parameter.data) for parameter in layer.parameters()]
        with torch.inference_mode(False):  # else what is copied while the model is only evaluated could have no gradient later
            for parameter, home in self.homes:
                parameter.data = home.to(self.device, self.dtype)
