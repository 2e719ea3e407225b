"""Check: config.json asks for nothing that llama.cpp has built in otherwise.

Of most keys that models of an architecture differ in, GGUF has a field. Of others llama.cpp's graph of the architecture knows one value, and its converter
neither reads nor checks the key: two models become one file, and one of them is wrong. Found by changing key after key of small models of 25 architectures,
and looking which change the answers in transformers and no byte of the GGUF (llama-cpp-python 0.3.36). The comparison of both engines judges; this only tells
early why.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from engines import text_part, toolchain
from service.release.checks.problem import Remark
from service.release.graph import Check

if TYPE_CHECKING:
    from service.release.prospect import Prospect

Config = Mapping[str, Any]

_SILU, _GELU, _RELU2 = {"silu", "swish"}, {"gelu", "gelu_new", "gelu_pytorch_tanh"}, {"relu2"}
_ACTIVATIONS: Mapping[str, set[str]] = {
    **dict.fromkeys(("llama", "llama4_text", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "olmo2", "olmoe", "phi3"), _SILU),
    **dict.fromkeys(("granite", "granitemoe", "smollm3", "stablelm", "glm4", "glm4_moe", "exaone4", "ernie4_5", "hunyuan_v1_dense", "seed_oss"), _SILU),
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text", "phi", "starcoder2"), _GELU),
    **dict.fromkeys(("nemotron", "arcee"), _RELU2),
}
_VALUES: Mapping[str, Config] = {
    "olmoe": {"norm_topk_prob": False, "rms_norm_eps": 1e-5},
    "qwen2_moe": {"norm_topk_prob": False},
    "qwen3_moe": {"norm_topk_prob": True},
    "gpt_oss": {"swiglu_limit": 7.0},
    "llama4_text": {"attention_chunk_size": 8192, "floor_scale": 8192, "attn_scale": 0.1},
    "bloom": {"apply_residual_connection_post_layernorm": False},
}
_UNSCALED = {"gemma", "gemma2", "phi", "stablelm"}  # positions, whatever config.json says
_EVERY_FOURTH = {"smollm3", "llama4_text"}  # layer without positions
_WINDOW, _THETA = 112, 10000.0  # pixels of Qwen2.5-VL's windows, and the base of Pixtral's positions
_LARGEST = {"gemma2": 46, "gemma3_text": 62}  # layers of the models with 27 billion parameters, which llama.cpp tells by them


def look(prospect: "Prospect") -> Iterator[str]:
    """One remark for each key."""
    for key, found, built in differing(prospect.config):
        yield Remark(
            f"config.json of {prospect.upstream.release.repo} says {key}: {str(found)[:60]}. llama.cpp ({toolchain.version()}) has {built} built in and GGUF "
            "no field for another, so its file will not answer like the model."
        )
    if not prospect.recipe.variants.projectors():
        return
    for key, found, built in seen_otherwise(prospect.config):
        yield Remark(
            f"config.json of {prospect.upstream.release.repo} says vision_config.{key}: {str(found)[:60]}. llama.cpp ({toolchain.version()}) has {built} "
            "built in, so its projector (mmproj) will not make of images what the model does."
        )


def differing(config: Config) -> Iterator[tuple[str, Any, str]]:
    """(key of config.json, its value, what llama.cpp does instead), of the text part."""
    text = text_part.of(config)
    kind = str(text.get("model_type"))
    for key in ("hidden_act", "hidden_activation"):
        found = text.get(key)
        if found is not None and kind in _ACTIVATIONS and found not in _ACTIVATIONS[kind] and (key == "hidden_activation" or "hidden_activation" not in text):
            yield key, found, " or ".join(sorted(_ACTIVATIONS[kind]))
    kinds = text.get("layer_types")
    unchunked = kind == "llama4_text" and isinstance(kinds, list) and bool(kinds) and all(layer == "full_attention" for layer in kinds)  # the file says so
    for key, value in {} if unchunked else _VALUES.get(kind, {}).items():
        if text.get(key, value) != value:
            yield key, text[key], str(value).lower()
    for key in ("rope_scaling", "rope_parameters"):
        scaling = text.get(key)
        if kind in _UNSCALED and isinstance(scaling, Mapping) and scaling.get("rope_type", scaling.get("type", "default")) != "default":
            yield key, dict(scaling), "positions without scaling"
    layers = text.get("no_rope_layers")
    if kind in _EVERY_FOURTH and layers and list(layers) != [int(bool(number % 4)) for number in range(1, len(layers) + 1)]:
        yield "no_rope_layers", layers, "no positions in every fourth layer"
    if kind in _LARGEST and (scalar := text.get("query_pre_attn_scalar")) is not None and scalar != (built := _scalar(kind, text)):
        yield "query_pre_attn_scalar", scalar, str(built)


def seen_otherwise(config: Config) -> Iterator[tuple[str, Any, str]]:
    """The same of the vision tower."""
    tower = config.get("vision_config")
    if not isinstance(tower, Mapping):
        return
    if config.get("model_type") == "qwen2_5_vl":
        if (window := tower.get("window_size", _WINDOW)) != _WINDOW:
            yield "window_size", window, f"windows of {_WINDOW} pixels"
        whole, depth = tower.get("fullatt_block_indexes"), tower.get("depth", 32)
        if isinstance(whole, list) and whole and isinstance(whole[0], int) and whole[0] >= 0 and isinstance(depth, int):
            every = whole[0] + 1
            if whole != list(range(whole[0], depth, every)):
                yield "fullatt_block_indexes", whole, f"attention over the whole image in every layer whose number is a multiple of {every}"
    if tower.get("model_type") == "pixtral":
        rope = tower.get("rope_parameters")
        theta = rope.get("rope_theta") if isinstance(rope, Mapping) else tower.get("rope_theta")
        if theta is not None and theta != _THETA:
            yield "rope_theta", theta, f"{_THETA:g}"


def _scalar(kind: str, text: Config) -> int:
    """By whose root Gemma's queries are divided."""
    large = text.get("num_hidden_layers") == _LARGEST[kind]
    return int(text["hidden_size"]) // int(text["num_attention_heads"]) if large else int(text.get("head_dim", 256))


CHECKS = (Check(name="built in", stage="convert", look=look),)
