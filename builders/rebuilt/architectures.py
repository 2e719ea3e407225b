"""What the header of a GGUF file means in transformers' words: config.json, and what the parts of a layer are called.

Of an architecture only what llama.cpp's converter (conversion/llama.py, qwen.py, gemma.py, granite.py, phi.py) writes is taken; whatever else a header says is
refused by name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from builders.rebuilt import scaling
from builders.rebuilt.stated import head_dim, heads, refused, shortest
from config.rules import families_of, load_families
from engines.gguf_header import Entry, Header, matrix_type

Config = dict[str, Any]
Listed = Mapping[str, Entry]
"""Tensors of a file by name."""

PLAIN = ("F32", "F16", "BF16")
HEAD = "output.weight"
DTYPES: Mapping[str, str] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
ROLES: Mapping[str, str] = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown", "sep": "seperator", "cls": "cls", "mask": "mask"}
"""The roles of tokens, and what GGUF calls them."""

_AROUND: dict[str, str] = {"attn_norm": "input_layernorm", "attn_output": "self_attn.o_proj"}
_ATTENTION: dict[str, str] = _AROUND | {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj"}
_LAYER: dict[str, str] = _ATTENTION | {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
_FUSED: dict[str, str] = _AROUND | {"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj", "ffn_down": "mlp.down_proj"}
_BEFORE_MLP: dict[str, str] = {"ffn_norm": "post_attention_layernorm"}
_NORMED: dict[str, str] = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_SANDWICH: dict[str, str] = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
EACH = "{}"  # in a name, where transformers has a tensor for each expert: its number
_QWEN_EXPERTS: dict[str, str] = {
    "ffn_gate_inp": "mlp.gate",
    **{f"ffn_{part}_exps": f"mlp.experts.{EACH}.{part}_proj" for part in ("gate", "up", "down")},
}
_MIXTRAL_EXPERTS: dict[str, str] = {
    "ffn_gate_inp": "block_sparse_moe.gate",
    **{f"ffn_{part}_exps": f"block_sparse_moe.experts.{EACH}.{name}" for part, name in (("gate", "w1"), ("down", "w2"), ("up", "w3"))},
}
_GRANITE_EXPERTS: dict[str, str] = {  # both halves of `input_linear` are tensors of their own in the file
    "ffn_gate_inp": "block_sparse_moe.router.layer",
    **dict.fromkeys(("ffn_gate_exps", "ffn_up_exps"), "block_sparse_moe.input_linear"),
    "ffn_down_exps": "block_sparse_moe.output_linear",
}
OUTSIDE: Mapping[str, str] = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}

_HEADS = frozenset({"attention.key_length", "attention.value_length"})
_WINDOW = "attention.sliding_window"
_EXPERTS, _EXPERT_WIDTH = frozenset({"expert_count", "expert_used_count"}), "expert_feed_forward_length"
_COUNTS = _EXPERTS | {
    *("block_count", "embedding_length", "attention.head_count", "attention.head_count_kv", "attention.key_length", "rope.dimension_count"),
    _EXPERT_WIDTH,
}
MOST_EXPERTS = 512  # of a layer, in llama.cpp
_SIZES = ("block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count")
_KEYS = _HEADS | {
    *_SIZES,
    *("attention.head_count_kv", "attention.layer_norm_rms_epsilon", "vocab_size", "rope.dimension_count", "rope.freq_base"),
    *(scaling.TYPE, scaling.FACTOR, scaling.ORIGINAL, "rope.scaling.attn_factor", "rope.scaling.finetuned", "rope.scaling.yarn_ext_factor"),
    *("rope.scaling.yarn_attn_factor", "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow"),
}
_CAP, _LAST_CAP = "attn_logit_softcapping", "final_logit_softcapping"
_MULTIPLIERS: Mapping[str, str] = {
    "attention.scale": "attention_multiplier",
    "embedding_scale": "embedding_multiplier",
    "residual_scale": "residual_multiplier",
    "logit_scale": "logits_scaling",
}
"""Granite's, by what GGUF calls them."""
_EVERY = {"gemma2": 2, "gemma3": 6, "smollm3": 4}  # layer looks at all of the text, or knows no positions: built into llama.cpp
_DIVIDED_OTHERWISE = {"gemma2": 46, "gemma3": 62}  # layers of the model of each kind whose queries llama.cpp divides by another number


def _llama(header: Header, listed: Listed) -> Config:
    biased = _biased(listed)
    if not biased["attention_bias"] and _speaks_as_mistral(header):
        return {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_act": "silu", "sliding_window": None}
    return {"hidden_act": "silu"} | biased


def _qwen2(header: Header, listed: Listed) -> Config:
    return {"hidden_act": "silu", "use_sliding_window": False}


def _qwen3(header: Header, listed: Listed) -> Config:
    return _qwen2(header, listed) | {"attention_bias": _biased(listed)["attention_bias"]}


def _qwen3moe(header: Header, listed: Listed) -> Config:
    return _qwen2(header, listed) | {
        "attention_bias": False,
        "num_experts": header.of("expert_count"),
        "num_experts_per_tok": header.of("expert_used_count"),
        "moe_intermediate_size": header.of(_EXPERT_WIDTH),
        "norm_topk_prob": True,  # built into llama.cpp
        "decoder_sparse_step": 1,  # every layer is a mixture, or the file would hold tensors that are not known
        "mlp_only_layers": [],
    }


def _mixtral(header: Header, listed: Listed) -> Config:
    return {"hidden_act": "silu", "sliding_window": None} | _local_experts(header)


def _local_experts(header: Header) -> Config:
    return {"num_local_experts": header.of("expert_count"), "num_experts_per_tok": header.of("expert_used_count")}


def _smollm3(header: Header, listed: Listed) -> Config:
    positions = [int((layer + 1) % _EVERY["smollm3"] != 0) for layer in range(header.of("block_count"))]
    return {"hidden_act": "silu", "use_sliding_window": False, "no_rope_layers": positions, "no_rope_layer_interval": _EVERY["smollm3"]} | _biased(listed)


def _granite(header: Header, listed: Listed) -> Config:
    return {"hidden_act": "silu"} | _biased(listed) | _multipliers(header)


def _granitemoe(header: Header, listed: Listed) -> Config:
    return {"hidden_act": "silu", "attention_bias": False} | _multipliers(header) | _local_experts(header)


def _multipliers(header: Header) -> Config:
    return {name: shortest(header.of(key)) for key, name in _MULTIPLIERS.items()}


def _phi3(header: Header, listed: Listed) -> Config:
    share = header.of("rope.dimension_count") / head_dim(header)
    rotated = {} if share == 1 else {"partial_rotary_factor": share}
    return {"hidden_act": "silu", "original_max_position_embeddings": header.of(scaling.ORIGINAL), "sliding_window": header.of(_WINDOW) or None} | rotated


def _gemma2(header: Header, listed: Listed) -> Config:
    return _gemma(header, listed) | {_CAP: shortest(header.of(_CAP)), _LAST_CAP: shortest(header.of(_LAST_CAP))}


def _gemma3(header: Header, listed: Listed) -> Config:
    return _gemma(header, listed) | {
        _CAP: None,
        _LAST_CAP: shortest(header.of(_LAST_CAP)) if header.of(_LAST_CAP) else None,
        "rope_local_base_freq": shortest(header.of("rope.freq_base_swa", 10_000.0)),
    }


def _gemma(header: Header, listed: Listed) -> Config:
    """What Gemma 2 and 3 say alike."""
    kind, layers, window = header.architecture, header.of("block_count"), header.of(_WINDOW)
    whole = [window is None or (layer + 1) % _EVERY[kind] == 0 for layer in range(layers)]
    divided = header.of("embedding_length") // heads(header)[0] if layers == _DIVIDED_OTHERWISE[kind] else head_dim(header)
    return {
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": _biased(listed)["attention_bias"],
        "layer_types": ["full_attention" if seen else "sliding_attention" for seen in whole],
        "query_pre_attn_scalar": divided,
        "sliding_window": window,
    }


def _biased(listed: Listed) -> Config:
    return {"attention_bias": "blk.0.attn_q.bias" in listed, "mlp_bias": "blk.0.ffn_gate.bias" in listed}


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network that is known on both sides."""

    model_type: str
    name: str  # of transformers' class
    layer: Mapping[str, str]  # names of the parts of a layer, by those in GGUF
    own: Callable[[Header, Listed], Config]  # what only its config.json says
    keys: frozenset[str] = _KEYS
    required: frozenset[str] = frozenset()  # of these, those without which the model would be another
    derived: frozenset[str] = frozenset()  # tensors that the converter makes of config.json
    permuted: bool = False  # rows of queries and keys stand in another order
    shifted: bool = False  # one is added to what multiplies in norms

    @property
    def is_mixture(self) -> bool:
        """Whether its layers are mixtures of experts. None of those known has biases."""
        return "ffn_gate_inp" in self.layer


_FROM_LLAMA: dict[str, Any] = {"permuted": True, "derived": frozenset({scaling.FREQUENCIES})}
_AS_LLAMA: dict[str, Any] = _FROM_LLAMA | {"layer": _LAYER | _BEFORE_MLP}
_GEMMA2, _PHI3, _GRANITE = frozenset({_CAP, _LAST_CAP, _WINDOW}), frozenset({"rope.dimension_count", scaling.ORIGINAL, _WINDOW}), frozenset(_MULTIPLIERS)
_GEMMA3 = frozenset({_WINDOW, "rope.freq_base_swa", _LAST_CAP, "attention.sliding_window_pattern"})
ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture(model_type="llama", name="LlamaForCausalLM", own=_llama, **_AS_LLAMA),
    "qwen2": Architecture(model_type="qwen2", name="Qwen2ForCausalLM", own=_qwen2, layer=_LAYER | _BEFORE_MLP),
    "qwen3": Architecture(model_type="qwen3", name="Qwen3ForCausalLM", own=_qwen3, layer=_LAYER | _BEFORE_MLP | _NORMED),
    "gemma2": Architecture(
        model_type="gemma2", name="Gemma2ForCausalLM", own=_gemma2, layer=_LAYER | _SANDWICH, keys=_KEYS | _GEMMA2, required=_GEMMA2, shifted=True
    ),
    "gemma3": Architecture(
        model_type="gemma3_text", name="Gemma3ForCausalLM", own=_gemma3, layer=_LAYER | _SANDWICH | _NORMED, keys=_KEYS | _GEMMA3, shifted=True
    ),
    "phi3": Architecture(
        model_type="phi3",
        name="Phi3ForCausalLM",
        own=_phi3,
        layer=_FUSED | _BEFORE_MLP,
        keys=(_KEYS | _PHI3) - _HEADS,
        required=_PHI3,
        derived=frozenset({scaling.LONG, scaling.SHORT}),
    ),
    "granite": Architecture(model_type="granite", name="GraniteForCausalLM", own=_granite, keys=(_KEYS | _GRANITE) - _HEADS, required=_GRANITE, **_AS_LLAMA),
    "smollm3": Architecture(model_type="smollm3", name="SmolLM3ForCausalLM", own=_smollm3, **_AS_LLAMA),
    "qwen3moe": Architecture(
        model_type="qwen3_moe",
        name="Qwen3MoeForCausalLM",
        own=_qwen3moe,
        layer=_ATTENTION | _BEFORE_MLP | _NORMED | _QWEN_EXPERTS,
        keys=_KEYS | _EXPERTS | {_EXPERT_WIDTH},
        required=_EXPERTS | {_EXPERT_WIDTH},
    ),
    "granitemoe": Architecture(
        model_type="granitemoe",
        name="GraniteMoeForCausalLM",
        own=_granitemoe,
        layer=_ATTENTION | _BEFORE_MLP | _GRANITE_EXPERTS,
        keys=(_KEYS | _GRANITE | _EXPERTS) - _HEADS,
        required=_GRANITE | _EXPERTS,
        **_FROM_LLAMA,
    ),
}
MIXTRAL = Architecture(
    model_type="mixtral",
    name="MixtralForCausalLM",
    own=_mixtral,
    layer=_ATTENTION | _BEFORE_MLP | _MIXTRAL_EXPERTS,
    keys=_KEYS | _EXPERTS,
    required=_EXPERTS,
    **_FROM_LLAMA,
)
"""What GGUF calls a Llama as well, with a number of experts."""


def known(header: Header, file: str) -> Architecture:
    """The architecture of a model that can be rebuilt. Raises UpstreamError that says why this is none."""
    if (kind := header.fields.get("general.type", "model")) != "model":
        raise refused(file, f"holds no model but what GGUF calls {kind!r}")
    if (quantized := next((entry for entry in header.tensors if entry.type not in PLAIN), None)) is not None:
        raise refused(file, f"is quantized already ({quantized.name[:200]} is {quantized.type}); what that took away cannot be had back")
    found = MIXTRAL if header.architecture == "llama" and header.of("expert_count") else ARCHITECTURES.get(header.architecture)
    if found is None:
        raise refused(file, f"is of the architecture {header.architecture[:100]!r}; of {', '.join(ARCHITECTURES)} Sluice can rebuild config and tensors")
    prefix = f"{header.architecture}."
    own = {key.removeprefix(prefix): value for key, value in header.fields.items() if key.startswith(prefix)}
    for key in sorted(own.keys() - found.keys):
        if own[key]:
            raise refused(file, f"states {prefix}{key}, which none of the models does that Sluice knows as {found.model_type}")
    for key in (*_SIZES, *found.required, *(key for key in own if key in found.keys and key != scaling.TYPE)):
        least, kinds = (1, int) if key in _COUNTS else (0, int | float)
        if not isinstance(own.get(key), kinds) or own[key] < least:
            raise refused(file, f"states {str(own.get(key))[:50]} as {prefix}{key}, where a number has to be")
    if own["embedding_length"] % own["attention.head_count"] and "attention.key_length" not in own:
        raise refused(file, f"states neither {prefix}attention.key_length nor a width that its heads divide")
    if found.is_mixture and not own["expert_used_count"] <= own["expert_count"] <= MOST_EXPERTS:
        raise refused(file, f"sends a token to {own['expert_used_count']} of {own['expert_count']} experts, of which llama.cpp knows {MOST_EXPERTS} at most")
    return found


def config(header: Header, file: str) -> Config:
    """config.json. Raises UpstreamError where the file says what no config.json can."""
    found, listed = known(header, file), {entry.name: entry for entry in header.tensors}
    if "token_embd.weight" not in listed or len(listed["token_embd.weight"].shape) != 2:
        raise refused(file, "holds no embeddings (token_embd.weight)")
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
        "rope_scaling": scaling.scaling(header, file),
        "tie_word_embeddings": HEAD not in listed,
        "vocab_size": listed["token_embd.weight"].shape[0],
        **{f"{role}_token_id": number for role, number in special_ids(header).items() if role in {"bos", "eos", "pad"}},
        "dtype": DTYPES[matrix_type(header)],
        "torch_dtype": DTYPES[matrix_type(header)],
        "use_cache": True,
    }
    return made | found.own(header, listed)


def _speaks_as_mistral(header: Header) -> bool:
    """Whether the template is of a family whose models are Mistral's: to GGUF these are Llamas, and they compute alike."""
    template, families = header.fields.get("tokenizer.chat_template"), load_families()
    if not isinstance(template, str) or families_of("", "llama", template, families):
        return False
    return bool(families_of("", "mistral", template, families))


def special_ids(header: Header) -> dict[str, int]:
    """The id of the token of each role that the file states, or that llama.cpp takes for it in such a vocabulary."""
    usual = {"bos": 1, "eos": 2, "unk": 0} if header.fields.get("tokenizer.ggml.model") == "llama" else {}
    found = {role: header.fields.get(f"tokenizer.ggml.{word}_token_id", usual.get(role)) for role, word in ROLES.items()}
    count = len(header.fields.get("tokenizer.ggml.tokens", ()))
    return {role: number for role, number in found.items() if isinstance(number, int) and 0 <= number < count}
