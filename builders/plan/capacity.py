"""How many bytes a budget leaves for the planned tensors, once the rest of the file is counted: header, vocabulary and what is not planned."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from builders import quantize
from builders.ggufs import Weight, weigh
from config.errors import ConfigurationError
from config.plans import Budget, Fit
from engines import gguf_tensors

IMATRIX_BYTES = 512  # at most, of what llama-quantize writes about the importance matrix into the header
COMPUTE_BYTES = 512 * 2**20  # buffers of the computation, for a batch of 512 tokens: an estimate for models up to some 30B parameters


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """The budget, taken apart."""

    planned: int  # bytes for the planned tensors, each padded to 32
    overhead: int  # bytes of all else: header and other tensors
    rest: Mapping[str, str]  # types of the tensors that llama-quantize converts and that are not planned
    parameters: int
    fixed_tensor_bytes: int  # of the tensors that are not planned, without padding
    stock: Mapping[str, str] | None  # the stock mix of `like`, of every tensor that llama-quantize converts

    def bpw(self, planned: int) -> float:
        """Bits per weight of the whole file when the planned tensors have `planned` bytes, without padding."""
        return 8 * (self.fixed_tensor_bytes + planned) / self.parameters

    def within(self, bpw: float) -> int:
        """Bytes that the planned tensors may have, so that the whole file has `bpw` bits per weight at most."""
        return int(bpw * self.parameters / 8) - self.fixed_tensor_bytes


def capacity(budget: Budget, *, gguf: Path, imatrix: Path, planned: Collection[str]) -> Capacity:
    """What `budget` leaves for the tensors named in `planned`. Raises ConfigurationError, and ToolError when the file cannot be read by llama-quantize."""
    like = budget.like if budget.like != quantize.unquantized(gguf) else None
    made = quantize.planned(gguf, like or "Q8_0", imatrix)
    if unknown := sorted(set(planned) - {name for name, tensor in made.items() if tensor.quantized}):
        raise ConfigurationError(f"Sensitivities are given for tensors that llama-quantize does not convert: {', '.join(unknown)}. Measure them anew.")
    weight = weigh(gguf)
    others = {name: tensor for name, tensor in made.items() if name not in planned}
    overhead = quantize.file_bytes(weight.header_bytes, others.values())
    found = Capacity(
        planned=0,
        overhead=overhead,
        rest={name: tensor.type.name for name, tensor in others.items() if tensor.quantized},
        parameters=weight.parameters,
        fixed_tensor_bytes=sum(tensor.bytes for tensor in others.values()),
        stock={name: tensor.type.name for name, tensor in made.items() if tensor.quantized} if like else None,
    )
    return replace(found, planned=found.within(budget.bpw) if budget.bpw else _file_bytes(budget, made, gguf, weight) - overhead)


def cache_bytes(metadata: Mapping[str, Any], context: int) -> int:
    """Bytes of the keys and values of `context` tokens in 16 bits, from a GGUF's metadata; layers with a sliding window keep that many tokens only.

    Layers for multi-token prediction, the last ones, are not run and keep none. Where the window's layers are not listed in the file every layer counts in
    full, which is the safe side. Raises ConfigurationError.
    """
    architecture = metadata.get("general.architecture", "")

    def value(key: str, default: Any = None) -> Any:
        return metadata.get(f"{architecture}.{key}", default)

    try:
        layers, heads = int(value("block_count")) - int(value("nextn_predict_layers", 0)), value("attention.head_count")
        most = max(heads) if isinstance(heads, list) else int(heads)
        width = int(value("embedding_length")) // most
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise ConfigurationError(
            f"The GGUF file does not say how large its cache is ({architecture or 'no architecture'}). Give the budget in bytes."
        ) from error
    groups = value("attention.head_count_kv", most)
    per_layer = groups if isinstance(groups, list) else [groups] * layers
    window, pattern = value("attention.sliding_window"), value("attention.sliding_window_pattern")
    total = 0
    for layer in range(layers):
        slides = bool(window) and isinstance(pattern, list) and bool(pattern[layer])
        suffix = "_swa" if slides else ""
        keys = value(f"attention.key_length{suffix}", value("attention.key_length", width))
        values = value(f"attention.value_length{suffix}", value("attention.value_length", width))
        total += min(context, int(window)) * int(per_layer[layer]) * (keys + values) * 2 if slides else context * int(per_layer[layer]) * (keys + values) * 2
    return int(total)


def _file_bytes(budget: Budget, made: Mapping[str, quantize.Planned], gguf: Path, weight: Weight) -> int:
    """The size of the file that the budget allows, without what llama-quantize writes about the importance matrix."""
    if budget.like == quantize.unquantized(gguf):
        return weight.file_bytes
    if budget.like:
        return quantize.file_bytes(weight.header_bytes, made.values())
    if budget.bytes:
        return budget.bytes - IMATRIX_BYTES
    assert budget.fit is not None  # noqa: S101 - pydantic has seen to it that one of the four is given
    metadata = {name: field.contents() for name, field in gguf_tensors.Reader(gguf).fields.items() if not name.startswith("tokenizer.")}
    return left_for(budget.fit, metadata)


def left_for(fit: Fit, metadata: Mapping[str, Any] | None) -> int:
    """Bytes that memory leaves for a file, without what llama-quantize writes about the importance matrix; without metadata the cache is left out.

    Raises ConfigurationError when it leaves none.
    """
    cache = 0 if metadata is None else cache_bytes(metadata, fit.context)
    left = fit.memory - cache - COMPUTE_BYTES - IMATRIX_BYTES
    if left <= 0:
        raise ConfigurationError(
            f"{fit.memory / 2**30:.2f} GiB cannot hold the model: the cache of {fit.context} tokens takes {cache / 2**30:.2f} GiB and the computation about "
            f"{COMPUTE_BYTES / 2**30:.2f} GiB. Allow more memory or a shorter context."
        )
    return left
