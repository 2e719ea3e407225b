"""How many bytes llama.cpp's memory of a conversation takes beside the weights, reckoned from config.json.

Covered: attention with grouped keys and values, sliding windows, latent attention (MLA), layers with a state of fixed size (Mamba, Mamba 2, gated delta nets).
Not covered: buffers for computing, which depend on the backend and the batch; what a layer of another kind keeps, of which nothing is told.
"""

import math
from collections.abc import Mapping
from typing import Any

from engines import text_part

HALF = 2  # bytes of a key's or value's number: float16, llama.cpp's default for its cache
SINGLE = 4  # bytes of a state's number: float32
CELLS = 256  # llama.cpp makes its caches a multiple of so many tokens long
BATCH = 512  # tokens that it evaluates at once, which a sliding window must hold beside its own

# model_type -> every how many layers one sees the whole context, where config.json does not list the layers. Only for these llama.cpp keeps no more than the
# window: for others (Mistral, Phi-3, Qwen2) it keeps the whole context, whatever config.json says of a window
_SLIDING = {
    "gemma2": 2, "gemma3": 6, "gemma3_text": 6, "gemma3n": 5, "gemma3n_text": 5, "cohere2": 4, "gpt_oss": 2, "olmo3": 4, "exaone4": 4, "afmoe": 4,
}  # fmt: skip
_FULL = {"full_attention", "attention"}
_WINDOW = {"sliding_attention", "sliding_window_attention", "chunked_attention"}
_DELTA = {"linear_attention"}
_STATE = {"mamba", "mamba2", "recurrent"}


def context_length(config: Mapping[str, Any]) -> int | None:
    """The most tokens that the model was made for; None where config.json does not say."""
    return _number(text_part.of(config), "max_position_embeddings") or _number(text_part.of(config), "n_positions") or None


def windowed(config: Mapping[str, Any]) -> bool:
    """Whether llama.cpp keeps to a window of attention, where config.json asks for one."""
    return text_part.of(config).get("model_type") in _SLIDING


def cache_bytes(config: Mapping[str, Any], tokens: int) -> int | None:
    """Bytes of llama.cpp's cache for one sequence of that many tokens; None where config.json does not tell all that it takes.

    A layer of attention keeps, for each token, the keys and values of its heads as float16: 2 · heads_kv · head_dim numbers (llama.cpp's llama-kv-cache.cpp;
    n_embd_k_gqa and n_embd_v_gqa in llama-hparams.cpp). Latent attention keeps kv_lora_rank + qk_rope_head_dim numbers in their place (DeepSeek-V2, arXiv
    2405.04434, 2.1.3). A layer with a sliding window holds at most the window and one batch (llama-kv-cache-iswa.cpp). A layer with a state holds float32
    numbers however long the context is (n_embd_r, n_embd_s): the last conv_kernel - 1 inputs of its convolution, and the state itself.
    """
    part = text_part.of(config)
    layers = _layers(part)
    if layers is None:
        return None
    whole = _padded(tokens)
    window = min(whole, _padded(_number(part, "sliding_window") + BATCH))
    total = 0
    for index, kind in enumerate(layers):
        if kind in _DELTA | _STATE:
            size = _delta(part) if kind in _DELTA else _mamba(part)
        else:
            numbers = _attention(part, index)
            size = None if numbers is None else HALF * numbers * (window if kind in _WINDOW else whole)
        if size is None:
            return None
        total += size
    return total


def _layers(part: Mapping[str, Any]) -> list[str] | None:
    """What each layer is, one of the words above; None where one is something else."""
    count = _number(part, "num_hidden_layers") or _number(part, "n_layer")
    if not count:
        return None
    listed = part.get("layer_types") or part.get("layers_block_type")
    model = part.get("model_type")
    if isinstance(listed, list) and len(listed) == count:
        if any(not isinstance(kind, str) or kind not in _FULL | _WINDOW | _DELTA | _STATE for kind in listed):
            return None
        kinds = [str(kind) for kind in listed]
    elif model in {"mamba", "mamba2", "falcon_mamba"}:
        kinds = ["mamba"] * count
    elif isinstance(model, str) and model in _SLIDING:
        every = _number(part, "sliding_window_pattern") or _SLIDING[model]
        kinds = ["full_attention" if (index + 1) % every == 0 else "sliding_attention" for index in range(count)]
    elif any(name in part for name in ("full_attention_interval", "attn_layer_period", "hybrid_override_pattern", "attn_layer_indices", "mamba_d_state")):
        return None  # layers of several kinds, and which is which is told in a way of its own
    else:
        kinds = ["full_attention"] * count
    if model not in _SLIDING or not _number(part, "sliding_window"):
        kinds = ["full_attention" if kind in _WINDOW else kind for kind in kinds]
    return kinds


def _attention(part: Mapping[str, Any], layer: int) -> int | None:
    """Numbers that a layer of attention keeps of one token."""
    if rank := _number(part, "kv_lora_rank"):
        return rank + _number(part, "qk_rope_head_dim")
    queries = _number(part, "num_attention_heads") or _number(part, "n_head")
    heads = part.get("num_key_value_heads")
    if isinstance(heads, list):
        heads = heads[layer] if layer < len(heads) else None
    heads = heads if isinstance(heads, int) and heads > 0 else queries
    hidden = _number(part, "hidden_size") or _number(part, "n_embd")
    width = _number(part, "head_dim") or (hidden // queries if queries else 0)
    return 2 * heads * width or None


def _mamba(part: Mapping[str, Any]) -> int | None:
    """Bytes of a Mamba layer's state; the names are those of Mamba, Mamba 2 and of hybrids with either."""
    state = _number(part, "state_size") or _number(part, "mamba_d_state") or _number(part, "ssm_state_size")
    kernel = _number(part, "conv_kernel") or _number(part, "mamba_d_conv")
    hidden = _number(part, "hidden_size")
    inner = int(hidden * (_number(part, "expand") or _number(part, "mamba_expand") or 0))
    groups = 0 if part.get("model_type") in {"mamba", "falcon_mamba"} else _number(part, "n_groups") or _number(part, "mamba_n_groups")
    if not (state and kernel and inner):
        return None
    return SINGLE * ((kernel - 1) * (inner + 2 * groups * state) + state * inner)


def _delta(part: Mapping[str, Any]) -> int | None:
    """Bytes of the state of a gated delta net, as in Qwen3-Next: a matrix of keys by values for each value head."""
    sizes = [
        _number(part, f"linear_{name}")
        for name in ("num_key_heads", "key_head_dim", "num_value_heads", "value_head_dim", "conv_kernel_dim")
    ]  # fmt: skip
    if not all(sizes):
        return None
    keys, key, values, value, kernel = sizes
    return SINGLE * ((kernel - 1) * (2 * keys * key + values * value) + values * key * value)


def _number(part: Mapping[str, Any], name: str) -> int:
    """A positive number of config.json, else 0; the file is a stranger's."""
    value = part.get(name)
    sound = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and 0 < value < 2**31
    return int(value) if sound and value is not None else 0


def _padded(tokens: int) -> int:
    return -(-tokens // CELLS) * CELLS
