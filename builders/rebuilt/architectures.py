"""What the header of a GGUF file means in transformers' words: config.json, and the name and form of each tensor.

Of an architecture only what llama.cpp's converter (conversion/llama.py, qwen.py, gemma.py) writes is taken; whatever else a header says is refused by name.
"""

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from builders.weights import Tensor
from config.errors import UpstreamError
from config.rules import families_of, load_families
from engines.gguf_header import Entry, Header

Config = dict[str, Any]

PLAIN = ("F32", "F16", "BF16")
FREQUENCIES = "rope_freqs.weight"  # the factors of Llama 3's RoPE, which the converter computes from config.json
HEAD = "output.weight"
DTYPES: Mapping[str, str] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
ROLES: Mapping[str, str] = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown", "sep": "seperator", "cls": "cls", "mask": "mask"}
"""The roles of tokens, and what GGUF calls them."""

_LAYER: dict[str, str] = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_BEFORE_MLP: dict[str, str] = {"ffn_norm": "post_attention_layernorm"}
_NORMED: dict[str, str] = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_SANDWICH: dict[str, str] = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_OUTSIDE: Mapping[str, str] = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}

SCALING = "rope.scaling.type"
_COUNTS = frozenset({"block_count", "embedding_length", "attention.head_count", "attention.head_count_kv", "attention.key_length"})
_SIZES = ("block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count")
_KEYS = frozenset(
    {
        *_SIZES,
        *("attention.head_count_kv", "attention.key_length", "attention.value_length", "attention.layer_norm_rms_epsilon", "vocab_size"),
        *("rope.dimension_count", "rope.freq_base", SCALING, "rope.scaling.factor", "rope.scaling.original_context_length"),
        *("rope.scaling.attn_factor", "rope.scaling.finetuned", "rope.scaling.yarn_ext_factor", "rope.scaling.yarn_attn_factor"),
        *("rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow"),
    }
)
_GEMMA_KEYS = frozenset({"attention.sliding_window", "rope.freq_base_swa", "final_logit_softcapping", "attention.sliding_window_pattern"})
_EVERY = 6  # layer of Gemma 3 that looks at all of the text
_LARGEST = 62  # layers of the Gemma 3 whose queries llama.cpp divides otherwise
_LONG = tuple(2**power for power in range(9, 19))  # tokens that a model scaled as Llama 3.1 may have been trained on before
_LOW, _HIGH = 1.0, 4.0  # its factors, in all models known


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network that is known on both sides."""

    model_type: str
    name: str  # of transformers' class
    layer: Mapping[str, str]  # names of the parts of a layer, by those in GGUF
    keys: frozenset[str] = _KEYS
    permuted: bool = False  # rows of queries and keys stand in another order
    shifted: bool = False  # one is added to what multiplies in norms


ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture(model_type="llama", name="LlamaForCausalLM", layer=_LAYER | _BEFORE_MLP, permuted=True),
    "qwen2": Architecture(model_type="qwen2", name="Qwen2ForCausalLM", layer=_LAYER | _BEFORE_MLP),
    "qwen3": Architecture(model_type="qwen3", name="Qwen3ForCausalLM", layer=_LAYER | _BEFORE_MLP | _NORMED),
    "gemma3": Architecture(model_type="gemma3_text", name="Gemma3ForCausalLM", layer=_LAYER | _SANDWICH | _NORMED, keys=_KEYS | _GEMMA_KEYS, shifted=True),
}


def known(header: Header, file: str) -> Architecture:
    """The architecture of a model that can be rebuilt. Raises UpstreamError that says why this is none."""
    if (kind := header.fields.get("general.type", "model")) != "model":
        raise _refused(file, f"holds no model but what GGUF calls {kind!r}")
    if (quantized := next((entry for entry in header.tensors if entry.type not in PLAIN), None)) is not None:
        raise _refused(file, f"is quantized already ({quantized.name[:200]} is {quantized.type}); what that took away cannot be had back")
    found = ARCHITECTURES.get(header.architecture)
    if found is None:
        raise _refused(file, f"is of the architecture {header.architecture[:100]!r}; of {', '.join(ARCHITECTURES)} Sluice can rebuild config and tensors")
    prefix = f"{header.architecture}."
    own = {key.removeprefix(prefix): value for key, value in header.fields.items() if key.startswith(prefix)}
    for key in sorted(own.keys() - found.keys):
        if own[key]:
            raise _refused(file, f"states {prefix}{key}, which none of the models does that Sluice knows as {header.architecture}")
    for key in (*_SIZES, *(key for key in own if key in found.keys and key != SCALING)):
        least, kinds = (1, int) if key in _COUNTS else (0, int | float)
        if not isinstance(own.get(key), kinds) or own[key] < least:
            raise _refused(file, f"states {str(own.get(key))[:50]} as {prefix}{key}, where a number has to be")
    if own["embedding_length"] % own["attention.head_count"] and "attention.key_length" not in own:
        raise _refused(file, f"states neither {prefix}attention.key_length nor a width that its heads divide")
    return found


def _refused(file: str, what: str) -> UpstreamError:
    return UpstreamError(
        f"{file} {what}, so no release can be made of it. Release the repo that it was made from, which its card should name, or `sluice quantize` the file "
        "alone."
    )


def names(header: Header, file: str) -> dict[str, str]:
    """The name in transformers of each tensor, by that in the file. Raises UpstreamError for a tensor that the architecture does not have."""
    found = known(header, file)
    made: dict[str, str] = {}
    for entry in header.tensors:
        if entry.name == FREQUENCIES and found.permuted:
            continue
        name = _name(entry.name, found, header.of("block_count"))
        if name is None:
            raise _refused(file, f"holds the tensor {entry.name[:200]}, which none of the models has that Sluice knows as {header.architecture}")
        made[entry.name] = name
    return made


def _name(name: str, found: Architecture, layers: int) -> str | None:
    stem, _, form = name.rpartition(".")
    if form not in {"weight", "bias"}:
        return None
    if stem in _OUTSIDE:
        return f"{_OUTSIDE[stem]}.{form}"
    block, _, rest = stem.partition(".")
    number, _, part = rest.partition(".")
    if block != "blk" or not number.isdecimal() or int(number) >= layers or part not in found.layer:
        return None
    return f"model.layers.{int(number)}.{found.layer[part]}.{form}"


def tensors(header: Header, file: str) -> dict[str, Tensor]:
    """Each tensor by its name in transformers, stored as in the file. Raises UpstreamError."""
    named = names(header, file)
    listed = {entry.name: entry for entry in header.tensors}
    made = (
        Tensor(name=name, dtype=listed[there].type, shape=listed[there].shape, bytes=listed[there].bytes, file=listed[there].file or file)
        for there, name in named.items()
    )
    return {tensor.name: tensor for tensor in made}


def heads(header: Header) -> tuple[int, int]:
    """How many heads of queries there are, and of keys."""
    queries = int(header.of("attention.head_count"))
    return queries, int(header.of("attention.head_count_kv", queries))


def head_dim(header: Header) -> int:
    """Values in a head."""
    return int(header.of("attention.key_length", header.of("embedding_length") // header.of("attention.head_count")))


def config(header: Header, file: str) -> Config:
    """config.json. Raises UpstreamError where the file says what no config.json can."""
    found, listed = known(header, file), {entry.name: entry for entry in header.tensors}
    if "token_embd.weight" not in listed or len(listed["token_embd.weight"].shape) != 2:
        raise _refused(file, "holds no embeddings (token_embd.weight)")
    queries, keys = heads(header)
    made: Config = {
        "architectures": [found.name],
        "model_type": found.model_type,
        "hidden_size": header.of("embedding_length"),
        "intermediate_size": header.of("feed_forward_length"),
        "num_hidden_layers": header.of("block_count"),
        "num_attention_heads": queries,
        "num_key_value_heads": keys,
        "head_dim": head_dim(header),
        "max_position_embeddings": header.of("context_length"),
        "rms_norm_eps": shortest(header.of("attention.layer_norm_rms_epsilon", 1e-6)),
        "rope_theta": shortest(header.of("rope.freq_base", 10_000.0)),
        "rope_scaling": _scaling(header, listed, file),
        "tie_word_embeddings": HEAD not in listed,
        "vocab_size": listed["token_embd.weight"].shape[0],
        **{f"{role}_token_id": number for role, number in special_ids(header).items() if role in {"bos", "eos", "pad"}},
        "dtype": DTYPES[matrix_type(header)],
        "torch_dtype": DTYPES[matrix_type(header)],
        "use_cache": True,
    }
    return made | _own(header, found, listed)


def _own(header: Header, found: Architecture, listed: Mapping[str, Entry]) -> Config:
    """What only one architecture's config.json says."""
    biased = "blk.0.attn_q.bias" in listed
    if found.model_type == "llama" and not biased and _speaks_as_mistral(header):
        return {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_act": "silu", "sliding_window": None}
    if found.model_type == "llama":
        return {"hidden_act": "silu", "attention_bias": biased, "mlp_bias": "blk.0.ffn_gate.bias" in listed}
    if found.model_type != "gemma3_text":
        return {"hidden_act": "silu", "use_sliding_window": False} | ({"attention_bias": biased} if found.model_type == "qwen3" else {})
    layers, window = header.of("block_count"), header.of("attention.sliding_window")
    kinds = ["full_attention" if window is None or (layer + 1) % _EVERY == 0 else "sliding_attention" for layer in range(layers)]
    large = layers == _LARGEST
    return {
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": biased,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": shortest(header.of("final_logit_softcapping")) if header.of("final_logit_softcapping") else None,
        "layer_types": kinds,
        "query_pre_attn_scalar": header.of("embedding_length") // heads(header)[0] if large else head_dim(header),
        "rope_local_base_freq": shortest(header.of("rope.freq_base_swa", 10_000.0)),
        "sliding_window": window,
    }


def _speaks_as_mistral(header: Header) -> bool:
    """Whether the template is of a family whose models are Mistral's: to GGUF these are Llamas, and they compute alike."""
    template, families = header.fields.get("tokenizer.chat_template"), load_families()
    if not isinstance(template, str) or families_of("", "llama", template, families):
        return False
    return bool(families_of("", "mistral", template, families))


def matrix_type(header: Header) -> str:
    """The type of the matrices: that of all of them, or F32 where they are of several."""
    found = {entry.type for entry in header.tensors if len(entry.shape) > 1}
    return found.pop() if len(found) == 1 else "F32"


def special_ids(header: Header) -> dict[str, int]:
    """The id of the token of each role that the file states, or that llama.cpp takes for it in such a vocabulary."""
    usual = {"bos": 1, "eos": 2, "unk": 0} if header.fields.get("tokenizer.ggml.model") == "llama" else {}
    found = {role: header.fields.get(f"tokenizer.ggml.{word}_token_id", usual.get(role)) for role, word in ROLES.items()}
    count = len(header.fields.get("tokenizer.ggml.tokens", ()))
    return {role: number for role, number in found.items() if isinstance(number, int) and 0 <= number < count}


def shortest(value: float) -> float:
    """A number of 32 bits as people wrote it: the shortest one that becomes it again."""
    stored = struct.pack("<f", value)
    return next(short for digits in range(1, 18) if struct.pack("<f", short := float(f"{value:.{digits}g}")) == stored)


def _scaling(header: Header, listed: Mapping[str, Entry], file: str) -> Config | None:
    """`rope_scaling`."""
    kind, factor = header.of(SCALING, "none"), header.of("rope.scaling.factor")
    if FREQUENCIES in listed:
        return _llama3(header, file)
    if kind == "none" or not factor:
        return None
    if kind == "linear":
        return {"rope_type": "linear", "factor": shortest(factor)}
    if kind != "yarn":
        raise _refused(file, f"scales positions by {kind!r}, which Sluice does not know of {header.architecture}")
    others = {
        "extrapolation_factor": "yarn_ext_factor",
        "attention_factor": "yarn_attn_factor",
        "beta_fast": "yarn_beta_fast",
        "beta_slow": "yarn_beta_slow",
    }
    return {
        "rope_type": "yarn",
        "factor": shortest(factor),
        "original_max_position_embeddings": header.of("rope.scaling.original_context_length"),
        **{name: shortest(value) for name, key in others.items() if (value := header.of(f"rope.scaling.{key}")) is not None},
    }


def _llama3(header: Header, file: str) -> Config:
    """That of Llama 3.1 which makes the file's factors, one for each pair of values in a head, to within rounding. Raises UpstreamError."""
    theta, width = float(header.of("rope.freq_base", 10_000.0)), head_dim(header)
    factors, factor = header.factors, shortest(max(header.factors, default=1.0))
    for length in _LONG:
        made = list(_frequencies(theta, width, factor, length))
        if len(made) == len(factors) and all(math.isclose(one, other, rel_tol=1e-4) for one, other in zip(made, factors, strict=True)):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": _LOW,
                "high_freq_factor": _HIGH,
                "original_max_position_embeddings": length,
            }
    raise _refused(file, f"scales positions by factors of its own ({FREQUENCIES}), which are not those of Llama 3.1 and later")


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
