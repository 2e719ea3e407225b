"""What a release's weights are stored in, told by their headers: floating-point numbers, 8-bit ones or MXFP4 with scales, which are multiplied out, or what is
refused.

Where 8-bit numbers stand, value = stored number · scale, with one scale for the whole tensor, for each row, or for each block, computed in float32 and rounded
to bfloat16. So DeepSeek-V3 and Qwen3-FP8 (`weight_scale_inv`, which is the factor in spite of its name), compressed-tensors' `naive-quantized` and
`float-quantized`, FBGEMM and ModelOpt (`weight_scale`) store them. Scales of activations say how to compute, not what the weights are, and are left out.
Scales under other names (`scale` of DeepSeek's own programs, ComfyUI's `scale_weight`) are factors for some programs and divisors for others: such are refused.

MXFP4 (OCP Microscaling Formats 1.0) has numbers of 4 bits and for each 32 of a row a power of two. bfloat16 holds their products exactly. gpt-oss stores its
experts so: NAME_blocks (experts, rows, columns / 32, 16 bytes) and NAME_scales (experts, rows, columns / 32), which stand for NAME (experts, columns, rows).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from builders.weights import BITS, Tensor
from config.errors import UpstreamError

PLAIN = frozenset({"F16", "BF16", "F32", "F64"})
EIGHT = frozenset({"F8_E4M3", "F8_E5M2"})
FACTORS = PLAIN | {"F8_E8M0"}  # types of scales
AFTER = "BF16"  # what 8-bit numbers become
UNSTATED = 128  # rows and columns of a block where config.json states neither: DeepSeek-V3's, which transformers takes for granted too

KEY = "quantization_config"
_SCALES = ("_scale_inv", "_scale")  # how the name of a tensor's scales goes on
_BLOCKS, _EXPONENTS = "_blocks", "_scales"  # how the names of MXFP4's numbers and of their powers of two end
_BYTES = 16  # of a block of 32 numbers
_COMPUTING = re.compile(r"(?:^|[._])(?:input|activation|output|[qkv]|kv)_scale(?:_inv|_ub)?$")
_BITSANDBYTES = "bitsandbytes"
# names that only quantized weights have, with what they are called; the first that is found
_MARKS = (
    (re.compile(r"\.absmax$|\.quant_state\.|\.SCB$"), _BITSANDBYTES),
    (re.compile(r"\.g_idx$"), "GPTQ"),
    (re.compile(r"\.qweight$|\.qzeros$"), "GPTQ or AWQ"),
    (re.compile(r"_blocks$"), "MXFP4"),
    (re.compile(r"\.weight_packed$"), "compressed-tensors"),
    (re.compile(r"\.weight_(?:scale_2|global_scale)$"), "NVFP4"),
)
_LEFT_OVER = frozenset(
    {
        _BITSANDBYTES, "gptq", "awq", "auto-round", "aqlm", "compressed-tensors", "eetq", "fbgemm_fp8", "fp8", "higgs", "hqq", "inc", "modelopt", "mxfp4",
        "quanto", "quark", "spqr", "vptq",
    }
)  # fmt: skip
"""Methods that store weights in a form of their own: said of weights that are stored as they are, each of them is left over."""
_FEW = {"F4": "4 bits", "F6_E2M3": "6 bits", "F6_E3M2": "6 bits", "F8_E4M3FNUZ": "8 bits, by AMD's rule", "F8_E5M2FNUZ": "8 bits, by AMD's rule"}  # types
_COMPLEX = "C64"
_METHODS = {"gptq": "GPTQ", "awq": "AWQ", "mxfp4": "MXFP4", "bitnet": "BitNet", "hqq": "HQQ", "fp8": "FP8"}  # as people write them
_HEADS = re.compile(r"(?:model\.)?(?:v_head|value_head|reward_head|regression_layer|score|classifier|classification_head)\..+")


@dataclass(frozen=True, kw_only=True)
class Scaled:
    """A tensor of 8-bit numbers."""

    tensor: Tensor
    scale: Tensor | None  # None: the numbers are the values
    blocks: tuple[int, ...]  # how many rows, columns and so on share a scale, one for each dimension of the scale


@dataclass(frozen=True, kw_only=True)
class Fours:
    """A tensor of MXFP4's 4-bit numbers."""

    tensor: Tensor  # bytes (…, rows, columns / 32, 16), two numbers in each
    exponents: Tensor  # bytes (…, rows, columns / 32)


def settings(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What config.json says of the quantization; empty when it says nothing."""
    nested = config.get("text_config")
    found = config.get(KEY) or (nested.get(KEY) if isinstance(nested, dict) else None)
    return found if isinstance(found, dict) else {}


def refusal(config: Mapping[str, Any], tensors: Mapping[str, Tensor], *, variant: bool = False) -> str | None:
    """Why the weights cannot be the beginning of a release, as a sentence's end after the repo's name; None when they can.

    `variant`: they may be bitsandbytes' as well, which transformers runs as they are.
    """
    if head := next((name for name in tensors if _HEADS.fullmatch(name)), None):
        return (
            f"is no language model but one that rates or sorts texts: {_where(tensors[head])} is the head that does it. "
            "Name the model that it was made from; or, where a language model's weights lie beside it, ask its owner to upload them without this tensor."
        )
    if (strange := next((tensor for tensor in tensors.values() if tensor.dtype == _COMPLEX), None)) is not None:
        return (
            f"holds complex numbers, which are no language model's: {_where(strange)} is {_COMPLEX}. Ask its owner to upload the weights without this tensor."
        )
    if variant and settings(config).get("quant_method") == _BITSANDBYTES and any(map(_MARKS[0][0].search, tensors)):
        return None
    if (found := _quantized(settings(config), tensors)) is not None:
        return f"holds weights that are quantized already ({found}). Name the repo with the 16-bit weights that it was made from."
    method = in_use(config)
    return None if method is None or compact(tensors) else _used(method)


def in_use(config: Mapping[str, Any]) -> str | None:
    """The method by which config.json may have weights quantized that are stored as they are, in every pass say; None where it says nothing of such a one."""
    method = str(settings(config).get("quant_method") or "")[:40]
    return None if not method or method in _LEFT_OVER else method


def _used(method: str) -> str:
    if method == "bitnet":
        return (
            f"is computed with weights other than those that it stores: as BitNet, each is rounded to three values in every pass ({KEY} of config.json). What "
            "is made here would be another model. Take the files of its makers, or name one that is computed as it is stored."
        )
    return (
        f"stores its weights as they are, and {KEY} of config.json says {method!r} of them, of which it is not known here whether it is left over or part of "
        f"the model. Where it is left over, take {KEY} out of config.json, in a folder of your own; else name one that is computed as it is stored."
    )


def _quantized(stated: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str | None:
    """In what, and by which tensor that shows; None of weights that are not, whatever config.json says of them, or that can be multiplied out."""
    method, known = str(stated.get("quant_method", ""))[:40], fours(tensors)
    for pattern, called in _MARKS:
        if (name := next((name for name in tensors if pattern.search(name) and name not in known), None)) is not None:
            return f"{_METHODS.get(method, method or called)}: {_where(tensors[name])}"
    for tensor in tensors.values():
        integers = tensor.dtype not in PLAIN | EIGHT and len(tensor.shape) > 1 and tensor.name.endswith((".weight", "_proj"))
        if integers or tensor.dtype in _FEW:
            return f"{_METHODS.get(method, method or _FEW.get(tensor.dtype, 'integers'))}: {_where(tensor)} is {tensor.dtype}"
    try:
        scaled(stated, tensors)
    except UpstreamError as error:
        return str(error)
    return None


def scaled(stated: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Scaled]:
    """The tensors of 8-bit numbers by name, with their scales. Raises UpstreamError, in a few words, when scales are missing, do not fit or are not known."""
    found: dict[str, Scaled] = {}
    unclaimed = _unclaimed(tensors) if any(tensor.dtype in EIGHT for tensor in tensors.values()) else {}
    for name, tensor in tensors.items():
        if tensor.dtype in EIGHT:
            scale = next((tensors[name + end] for end in _SCALES if name + end in tensors), None)
            if (other := _other(name, unclaimed, alone=scale is None)) is not None:
                raise UpstreamError(f"{_where(tensor)} is {tensor.dtype}, and nobody can tell what {_where(tensors[other])} beside it does to its numbers")
            if scale is None and stated:
                raise UpstreamError(f"{_where(tensor)} is {tensor.dtype}, and its scale {name}{_SCALES[0]} is missing")
            found[name] = Scaled(tensor=tensor, scale=scale, blocks=() if scale is None else _blocks(tensor, scale, stated))
    return found


def _unclaimed(tensors: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """By the module that they belong to, the names of tensors that are no 8-bit numbers and not known as scales of such."""
    claimed, found = beside(tensors), dict[str, list[str]]()
    for name, tensor in tensors.items():
        if name not in claimed and tensor.dtype not in EIGHT:
            found.setdefault(name.rpartition(".")[0], []).append(name)
    return found


def _other(name: str, unclaimed: Mapping[str, list[str]], *, alone: bool) -> str | None:
    """What is called after a tensor, but for its bias, or, where it has no scale (`alone`), after any scale of its module; None where nothing is."""
    module = name.rpartition(".")[0]
    there = [other for other in (*unclaimed.get(module, ()), *unclaimed.get(name, ())) if other != f"{name}_bias"]
    return next((other for other in there if other.startswith((f"{name}_", f"{name}.")) or (alone and module and "scale" in other[len(module) :])), None)


def fours(tensors: Mapping[str, Tensor]) -> dict[str, Fours]:
    """The tensors of MXFP4 numbers by name, as far as they are whole and in gpt-oss' form; others are refused as what they are."""
    found = {}
    for name, tensor in tensors.items():
        exponents = tensors.get(name.removesuffix(_BLOCKS) + _EXPONENTS) if name.endswith(_BLOCKS) else None
        if exponents is not None and {tensor.dtype, exponents.dtype} == {"U8"} and len(exponents.shape) > 1 and tensor.shape == (*exponents.shape, _BYTES):
            found[name] = Fours(tensor=tensor, exponents=exponents)
    return found


def compact(tensors: Mapping[str, Tensor]) -> str | None:
    """What the weights that are multiplied out are stored in, in words; None where there are none."""
    return "MXFP4" if fours(tensors) else "8 bits" if any(tensor.dtype in EIGHT for tensor in tensors.values()) else None


def compacted(stated: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Scaled | Fours]:
    """All tensors that are multiplied out, by name. Raises UpstreamError as `scaled` does."""
    return {**scaled(stated, tensors), **fours(tensors)}


def _blocks(tensor: Tensor, scale: Tensor, stated: Mapping[str, Any]) -> tuple[int, ...]:
    if scale.dtype not in FACTORS:
        raise UpstreamError(f"{_where(scale)} is {scale.dtype}, not a number to multiply with")
    if math.prod(scale.shape) == 1:
        return ()
    named = dict(enumerate(_stated_block(stated), start=len(tensor.shape) - 2))  # of the last two dimensions
    found = []
    for place, count in enumerate(scale.shape):
        length = tensor.shape[place] if place < len(tensor.shape) else 0
        own = named.get(place)
        even = length // count if count and length % count == 0 else None  # of blocks of another size, where none is stated; a last one may be smaller
        fitting = [1, length, own] if own else [1, length, UNSTATED, even]
        size = next((size for size in fitting if size and -(-length // size) == count), None)
        if size is None:
            raise UpstreamError(f"{_where(scale)} has the shape {list(scale.shape)}, which does not fit {list(tensor.shape)}")
        found.append(size)
    return tuple(found)


def _stated_block(stated: Mapping[str, Any]) -> list[int]:
    """Rows and columns of a block as config.json says them, of the model or (compressed-tensors) of a group of its weights; empty where it does not."""
    groups = stated.get("config_groups")
    weights = [group.get("weights") for group in groups.values() if isinstance(group, dict)] if isinstance(groups, dict) else []
    said = [stated.get("weight_block_size"), *(part.get("block_structure") for part in weights if isinstance(part, dict))]
    return next((block for block in said if isinstance(block, list) and len(block) == 2 and all(isinstance(size, int) and size > 0 for size in block)), [])


def plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by name as they are once all is multiplied out: in bfloat16, and no scales."""
    return {tensor.name: tensor for tensor in becomes(tensors).values()}


def becomes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same by the name of what they are made from."""
    gone, four = beside(tensors), fours(tensors)
    return {name: _multiplied(four[name]) if name in four else _after(tensor) for name, tensor in tensors.items() if name not in gone}


def _multiplied(stored: Fours) -> Tensor:
    *experts, rows, blocks = stored.exponents.shape
    shape = (*experts, blocks * 2 * _BYTES, rows)
    return replace(stored.tensor, name=stored.tensor.name.removesuffix(_BLOCKS), dtype=AFTER, shape=shape, bytes=math.prod(shape) * BITS[AFTER] // 8)


def beside(tensors: Mapping[str, Tensor]) -> frozenset[str]:
    """Names of what stands beside numbers that are multiplied out, and is gone then; none where there are no such numbers."""
    scales = {name + end for name, tensor in tensors.items() if tensor.dtype in EIGHT for end in _SCALES}
    gone = frozenset(name for name in tensors if name in scales or _COMPUTING.search(name)) if scales else frozenset()
    return gone | {stored.exponents.name for stored in fours(tensors).values()}


def _after(tensor: Tensor) -> Tensor:
    return replace(tensor, dtype=AFTER, bytes=tensor.elements * BITS[AFTER] // 8) if tensor.dtype in EIGHT else tensor


def _where(tensor: Tensor) -> str:
    return f"{tensor.name[:200]} in {tensor.file}" if tensor.file else tensor.name[:200]
