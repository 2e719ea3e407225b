"""Writes weights that every engine reads alike, a tensor at a time: those of 8 bits and MXFP4 multiplied out to bfloat16, by the rule of `builders.packed`."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builders.links import link_or_copy
from builders.names import INDEX
from builders.packed import Fours, Scaled, becomes
from builders.weights import Tensor, weight_files
from builders.writing import write_file, write_index

if TYPE_CHECKING:
    import torch

NUMBERS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # of E2M1, by their code; with the highest bit set they are negative
BIAS = 127  # of a power of two in E8M0

Compact = Mapping[str, Scaled | Fours]
"""What is multiplied out, by name."""


def write(out: Path, snapshot: Path, *, tensors: Mapping[str, Tensor], compact: Compact, dropped: frozenset[str] = frozenset()) -> None:
    """Write the weight files of `snapshot` to `out`, those without such tensors and scales linked, and with such tensors the index, if there is one, anew.

    `tensors` are all of the snapshot's, by name, of which those in `dropped` are left out.
    """
    after = {name: made for name, made in becomes(tensors).items() if name not in dropped}
    for path in weight_files(snapshot):
        there = [tensor for tensor in tensors.values() if tensor.file == path.name]
        left = [(tensor, after[tensor.name]) for tensor in there if tensor.name in after]
        if [made for _, made in left] == there:
            link_or_copy(path, out / path.name)
        elif left:
            write_file(out / path.name, [made for _, made in left], _values(path, [before for before, _ in left], compact))
    if (compact or dropped) and (out / INDEX).is_file():
        write_index(out, after)


def _values(source: Path, tensors: list[Tensor], compact: Compact) -> Iterator[bytes]:
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
            match compact.get(tensor.name):
                case Scaled(scale=scale, blocks=blocks):
                    values = multiplied(values, None if scale is None else read(scale), blocks)
                case Fours(exponents=exponents):
                    values = unfolded(values, read(exponents))
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


def unfolded(codes: "torch.Tensor", exponents: "torch.Tensor") -> "torch.Tensor":
    """The bfloat16 values (experts, columns, rows) of MXFP4 codes (experts, rows, columns / 32, 16) and their powers of two (experts, rows, columns / 32).

    The lower half of a byte is the number of the lower column. No product is rounded; one beyond bfloat16's range is infinite, which `builders.precision`
    refuses.
    """
    import torch

    numbers = torch.tensor((*NUMBERS, *(-number for number in NUMBERS)), dtype=torch.bfloat16)
    found = torch.empty(*codes.shape[:-2], codes.shape[-2] * codes.shape[-1] * 2, dtype=torch.bfloat16)
    for place in range(len(codes)):  # an expert at a time: indices take eight times its bytes
        part = codes[place].int()
        pairs = torch.stack((numbers[part & 15], numbers[part >> 4]), dim=-1).flatten(-2)  # (rows, columns / 32, 32)
        powers = exponents[place].int()[..., None] - BIAS
        found[place] = torch.ldexp(pairs.float(), powers).to(torch.bfloat16).flatten(-2)
    return found.transpose(-1, -2)
