"""What a recipe or a command says about a planned mix: how large it may be, on what it must run fast, and which types are allowed where."""

import math
import re
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from config.strict import Strict

GgufType = Literal[
    "BF16", "F16", "F32", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS",
    "Q3_K_L", "Q3_K_M", "Q3_K_S", "IQ3_M", "IQ3_S", "IQ3_XS", "IQ3_XXS", "Q2_K", "Q2_K_S", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S",
]  # fmt: skip
"""llama.cpp's stock mixes: names of whole files, each a rule that gives every tensor a type."""

StoredType = Literal["MXFP4"]
ProjectorType = Literal["BF16", "F16", "Q8_0"]
"""What upstream may store weights in, and a GGUF file can hold bit for bit."""

TensorType = Literal[
    "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "Q2_K", "IQ3_XXS", "IQ3_S", "Q3_K", "IQ4_XS", "IQ4_NL",
    "Q4_0", "Q4_K", "Q4_1", "Q5_0", "Q5_K", "Q5_1", "Q6_K", "Q8_0", "BF16",
]  # fmt: skip
"""Types of a single tensor."""

Profile = Literal["any", "arm", "no-iq", "fast-gpu"]
"""Where the file must run fast; `PROFILES` says what each allows."""

Equal = Literal["gate_up", "qkv"]
"""Tensors of one layer that must have one type: ffn_gate and ffn_up (of experts and shared experts likewise); attn_q, attn_k and attn_v."""

_ALL: tuple[TensorType, ...] = get_args(TensorType)
_NO_IQ: tuple[TensorType, ...] = tuple(type for type in _ALL if not type.startswith("IQ") and type != "BF16")

PROFILES: dict[Profile, tuple[TensorType, ...]] = {
    # Everything; BF16 where a tensor is worth its bytes.
    "any": _ALL,
    # What ggml-cpu interleaves for ARM's dot-product and int8 matrix instructions (ggml_repack_get_optimal_repack_type in ggml-cpu/repack.cpp, branches
    # of ggml_cpu_has_neon); Q2_K is interleaved for AVX-512 and RISC-V only. Nothing is smaller than 4.5 bits per weight, so budgets below fail.
    "arm": ("IQ4_NL", "Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q8_0"),
    # IQ types look their values up in tables; a CPU without fast gathers and byte shuffles spends most of its time there.
    "no-iq": _NO_IQ,
    # What has a matrix-matrix kernel of its own on CUDA (ggml_cuda_should_use_mmq in ggml-cuda/mmq.cu): IQ1_M and BF16 are expanded for cuBLAS instead.
    "fast-gpu": tuple(type for type in _ALL if type not in {"IQ1_M", "BF16"}),
}
"""Allowed types by profile. `fast-gpu` also keeps ffn_gate and ffn_up equal: ggml_cuda_should_fuse_mul_mat fuses them only when their types are the same.
And it leaves the rounding of activations out, which is nearly the same for all types there (quantize_mmq_q8_1 in ggml-cuda/quantize.cu)."""

ABOVE = 0.1  # of plain NF4's bytes: how much larger a dynamic variant is when its recipe does not say

LEAST_BYTES = 100_000  # of anything that a number of bytes is given for; one below that lacks its unit
_UNITS = {"": 1, "b": 1} | {f"{prefix}{unit}": base**power for power, prefix in enumerate("kmgt", 1) for unit, base in (("b", 1000), ("ib", 1024))}


def byte_count(value: Any) -> Any:
    """The number of bytes in "8GiB", "4.6 GB", "512 MiB" or "123456"; what is neither a string nor a number stays as it is.

    Raises ValueError, also for a number without a unit that can only have lost it: a fraction, or fewer bytes than any file or memory for models has.
    """
    if isinstance(value, (int, float)):
        return _with_unit(value, str(value))
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(?P<number>\d+(?:\.\d+)?|\.\d+)\s*(?P<unit>[A-Za-z]*)\s*", value)
    if not match or match["unit"].lower() not in _UNITS:
        raise ValueError(f'{value!r} is not a number of bytes; write it as "8GiB", "4.6GB", "512MiB" or a plain number')
    if not match["unit"]:
        return _with_unit(float(match["number"]) if "." in match["number"] else int(match["number"]), match["number"])
    return int(float(match["number"]) * _UNITS[match["unit"].lower()])


def _with_unit(count: float, written: str) -> int | float:
    """The number itself, unless a unit is missing. Raises ValueError."""
    if 0 < count < LEAST_BYTES or (math.isfinite(count) and count != int(count)):
        raise ValueError(f"a unit is missing: {written} means {int(count)} bytes; write {written}GB")
    return count


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is not a regular expression: {error}") from error
    return text


Bytes = Annotated[int, BeforeValidator(byte_count), Field(gt=0)]
Pattern = Annotated[str, AfterValidator(_pattern)]


class Fit(Strict):
    """The memory of the machine that shall run the model, and how long its texts are."""

    memory: Bytes
    """Of the device that holds the whole model, weights and cache; "8GiB"."""
    context: int = Field(default=8192, ge=32)
    """Tokens that the cache of keys and values must hold, in 16 bits each."""


class Budget(Strict):
    """How large a planned file may be: exactly one of the four."""

    like: GgufType | None = None
    """The exact bytes of this stock mix's file."""
    bytes: Bytes | None = None
    """Bytes of the whole file; "4.6GB" or a number."""
    bpw: float | None = Field(default=None, gt=0, le=32)
    """Bits of tensor data per parameter, all tensors counted, as in the model card."""
    fit: Fit | None = None
    """Whatever fits into this memory beside the cache."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name in ("like", "bytes", "bpw", "fit") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of `like`, `bytes`, `bpw` and `fit`; given: {', '.join(given) or 'none'}")
        return self


class Nf4Budget(Strict):
    """How large planned NF4 safetensors may be: one of the three, or ABOVE more than plain ones."""

    bytes: Bytes | None = None
    """Bytes of all weight files; "4.6GB" or a number."""
    bpw: float | None = Field(default=None, gt=4, lt=16)
    """Bits of the weight files per parameter, as in the model card."""
    above: float | None = Field(default=None, gt=0, le=3)
    """What they may have on top of the plain NF4 variant's bytes, as a share of these: 0.1."""

    @model_validator(mode="before")
    @classmethod
    def _by_default(cls, value: Any) -> Any:
        if isinstance(value, dict) and all(value.get(name) is None for name in Nf4Budget.model_fields):
            return {**value, "above": ABOVE}
        return value

    @model_validator(mode="after")
    def _at_most_one(self) -> Self:
        given = [name for name in Nf4Budget.model_fields if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of `bytes`, `bpw` and `above` at most; given: {', '.join(given)}")
        return self


class Rules(Strict):
    """What a mix must keep to, whatever it costs."""

    types: tuple[TensorType, ...] = Field(default=_ALL, min_length=1)
    """Allowed types. A tensor whose rows fit none of them stays in BF16."""
    equal: tuple[Equal, ...] = ()
    """Groups of tensors that must have one type."""
    floors: dict[Pattern, TensorType] = Field(default_factory=dict)
    """By regular expression, searched for in the tensor's name: no fewer bits per weight than this type has. Every one that matches holds."""
    ceilings: dict[Pattern, TensorType] = Field(default_factory=dict)
    """Likewise: no more bits per weight."""
    activations: bool = True
    """Whether it counts that CPUs round what enters a K or IQ type's product more coarsely than what enters another's."""

    def within(self, profile: Profile) -> "Rules":
        """These rules and the profile's. Raises ValueError when they allow no type together."""
        types = tuple(type for type in self.types if type in PROFILES[profile])
        if not types:
            raise ValueError(f"none of the types {', '.join(self.types)} is allowed by the profile {profile!r}, which allows {', '.join(PROFILES[profile])}")
        gpu = profile == "fast-gpu"
        fused: tuple[Equal, ...] = ("gate_up",) if gpu else ()
        equal = tuple(dict.fromkeys((*self.equal, *fused)))
        return self.model_copy(update={"types": types, "equal": equal, "activations": self.activations and not gpu})
