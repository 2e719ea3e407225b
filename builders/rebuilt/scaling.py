"""How positions are scaled in a GGUF file, in the words of config.json: by a type and numbers in the header, or by factors in tensors of their own."""

import math
from collections.abc import Iterator
from typing import Any

from builders.rebuilt.stated import head_dim, refused, shortest
from engines.gguf_header import Header

FREQUENCIES = "rope_freqs.weight"  # the factors of Llama 3's RoPE, which the converter computes from config.json
LONG, SHORT = "rope_factors_long.weight", "rope_factors_short.weight"  # those of LongRoPE, which stand in config.json themselves
FACTORS = (FREQUENCIES, LONG, SHORT)

TYPE, FACTOR, ORIGINAL = "rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length"
_YARN = {
    "extrapolation_factor": "yarn_ext_factor",
    "attention_factor": "yarn_attn_factor",
    "beta_fast": "yarn_beta_fast",
    "beta_slow": "yarn_beta_slow",
}
_LENGTHS = tuple(2**power for power in range(9, 19))  # tokens that a model scaled as Llama 3.1 may have been trained on before
_LOW, _HIGH = 1.0, 4.0  # its factors, in all models known


def scaling(header: Header, file: str) -> dict[str, Any] | None:
    """`rope_scaling`. Raises UpstreamError for what is not known."""
    kind, factor = header.of(TYPE, "none"), header.of(FACTOR)
    if FREQUENCIES in header.factors:
        return _llama3(header, file)
    if header.factors:
        return _long(header, file)
    if kind == "none" or not factor:
        return None
    if kind == "linear":
        return {"rope_type": "linear", "factor": shortest(factor)}
    if kind != "yarn":
        raise refused(file, f"scales positions by {kind!r}, which Sluice does not know of {header.architecture}")
    others = {name: shortest(value) for name, key in _YARN.items() if (value := header.of(f"rope.scaling.{key}")) is not None}
    return {"rope_type": "yarn", "factor": shortest(factor), "original_max_position_embeddings": header.of(ORIGINAL), **others}


def _long(header: Header, file: str) -> dict[str, Any]:
    """That of Phi-3 with 128k tokens, in the form that transformers 4 takes. Raises UpstreamError where factors are missing."""
    if {*header.factors} != {LONG, SHORT}:
        raise refused(file, f"holds {', '.join(header.factors)} of the two tensors {LONG} and {SHORT}")
    short, long = ([shortest(value) for value in header.factors[name]] for name in (SHORT, LONG))
    return {"type": "longrope", "short_factor": short, "long_factor": long}


def _llama3(header: Header, file: str) -> dict[str, Any]:
    """That of Llama 3.1 which makes the file's factors, one for each pair of values in a head, to within rounding. Raises UpstreamError."""
    theta, width = float(header.of("rope.freq_base", 10_000.0)), head_dim(header)
    factors = header.factors[FREQUENCIES]
    factor = shortest(max(factors, default=1.0))
    for length in _LENGTHS:
        made = list(_frequencies(theta, width, factor, length))
        if len(made) == len(factors) and all(math.isclose(one, other, rel_tol=1e-4) for one, other in zip(made, factors, strict=True)):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": _LOW,
                "high_freq_factor": _HIGH,
                "original_max_position_embeddings": length,
            }
    raise refused(file, f"scales positions by factors of its own ({FREQUENCIES}), which are not those of Llama 3.1 and later")


def _frequencies(theta: float, width: int, factor: float, length: int) -> Iterator[float]:
    """The factors that the converter computes (`generate_extra_tensors` in conversion/llama.py)."""
    for place in range(0, width, 2):
        wave = 2 * math.pi * theta ** (place / width)
        if wave < length / _HIGH:
            yield 1.0
        elif wave > length / _LOW:
            yield factor
        else:
            smooth = (length / wave - _LOW) / (_HIGH - _LOW)
            yield 1 / ((1 - smooth) / factor + smooth)
