"""Multiplies weights of 8 bits out to bfloat16, a tensor at a time: a folder that every engine reads alike, by the rule of `builders.packed`."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builders.links import link_or_copy
from builders.names import INDEX
from builders.packed import Scaled, plain
from builders.weights import Tensor, weight_files
from builders.writing import write_file, write_index

if TYPE_CHECKING:
    import torch


def write(out: Path, snapshot: Path, *, tensors: Mapping[str, Tensor], eight: Mapping[str, Scaled]) -> None:
    """Write the weight files of `snapshot` to `out`, those without 8-bit tensors and scales linked, and with such tensors the index, if there is one, anew.

    `tensors` are all of the snapshot's, by name.
    """
    after = plain(tensors)
    for path in weight_files(snapshot):
        there = [tensor for tensor in tensors.values() if tensor.file == path.name]
        left = [after[tensor.name] for tensor in there if tensor.name in after]
        if left == there:
            link_or_copy(path, out / path.name)
        elif left:
            write_file(out / path.name, left, _values(path, left, eight))
    if eight and (out / INDEX).is_file():
        write_index(out, after)


def _values(source: Path, tensors: list[Tensor], eight: Mapping[str, Scaled]) -> Iterator[bytes]:
    """The bytes of each tensor as they are to be written; scales may lie in another file than what they belong to."""
    import torch
    from safetensors import safe_open

    with ExitStack() as opened:
        files: dict[str, Any] = {}

        def read(tensor: Tensor) -> "torch.Tensor":
            if tensor.file not in files:
                files[tensor.file] = opened.enter_context(safe_open(source.with_name(tensor.file), framework="pt"))
            values: torch.Tensor = files[tensor.file].get_tensor(tensor.name)
            return values

        for tensor in tensors:
            values = read(tensor)
            if (scaled := eight.get(tensor.name)) is not None:
                values = multiplied(values, None if scaled.scale is None else read(scaled.scale), scaled.blocks)
            yield values.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def multiplied(values: "torch.Tensor", scale: "torch.Tensor | None", blocks: tuple[int, ...]) -> "torch.Tensor":
    """Stored numbers times their scales, in float32, rounded to bfloat16; `blocks` are a `Scaled`'s, empty where one scale is for all."""
    import torch

    found = values.float()
    if scale is None:
        return found.to(torch.bfloat16)
    factor = scale.float()
    if not blocks:
        return (found * factor.reshape(())).to(torch.bfloat16)
    for place, size in enumerate(blocks):
        factor = factor.repeat_interleave(size, dim=place).narrow(place, 0, values.shape[place])
    factor = factor.reshape(*factor.shape, *(1,) * (values.ndim - factor.ndim))  # a scale for each row, or for each expert
    return (found * factor).to(torch.bfloat16)
