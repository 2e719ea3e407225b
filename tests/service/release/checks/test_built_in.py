"""What llama.cpp has built in, against config.json; `findings/llama.cpp-converts-two-models-into-one-file.sh` runs the converter on some of it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from service.release.checks import Remark, built_in
from service.release.prospect import Prospect

GEMMA_27B = {"num_hidden_layers": 62, "hidden_size": 5376, "num_attention_heads": 32, "head_dim": 128, "query_pre_attn_scalar": 168}
CHUNKS = {"attention_chunk_size": 8192, "floor_scale": 8192, "attn_scale": 0.1, "layer_types": ["chunked_attention"] * 3 + ["full_attention"]}
LINEAR = {"rope_type": "linear", "factor": 4.0}


@pytest.mark.parametrize(("config", "keys"), [
    ({"model_type": "llama", "hidden_act": "silu"}, []),
    ({"model_type": "llama", "hidden_act": "relu"}, ["hidden_act"]),
    ({"model_type": "gemma", "hidden_act": "gelu", "hidden_activation": None}, []),
    ({"model_type": "gemma2", "hidden_act": "silu", "hidden_activation": "gelu_pytorch_tanh"}, []),
    ({"model_type": "strange", "hidden_act": "relu"}, []),
    ({"model_type": "qwen3_moe", "norm_topk_prob": True}, []),
    ({"model_type": "qwen2_moe", "norm_topk_prob": True}, ["norm_topk_prob"]),
    ({"model_type": "gemma2", "rope_scaling": LINEAR}, ["rope_scaling"]),
    ({"model_type": "gemma2", "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, []),
    ({"model_type": "llama", "rope_scaling": LINEAR}, []),
    ({"model_type": "smollm3", "no_rope_layers": [1, 1, 1, 0] * 9}, []),
    ({"model_type": "smollm3", "no_rope_layers": [1, 0] * 18}, ["no_rope_layers"]),
    ({"model_type": "llama4_text", **CHUNKS}, []),
    ({"model_type": "llama4", "text_config": {"model_type": "llama4_text", **CHUNKS, "attention_chunk_size": 64}}, ["attention_chunk_size"]),
    ({"model_type": "llama4_text", **CHUNKS, "attn_scale": 0.2, "floor_scale": 4096}, ["floor_scale", "attn_scale"]),
    ({"model_type": "llama4_text", **CHUNKS, "attention_chunk_size": 32768, "layer_types": ["full_attention"] * 4}, []),
    ({"model_type": "gemma3_text", **GEMMA_27B}, []),
    ({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", **GEMMA_27B, "num_hidden_layers": 34}}, ["query_pre_attn_scalar"]),
])  # fmt: skip
def test_keys(config: dict[str, Any], keys: list[str]) -> None:
    assert [key for key, _, _ in built_in.differing(config)] == keys


QWEN = {"depth": 32, "fullatt_block_indexes": [7, 15, 23, 31], "window_size": 112}


@pytest.mark.parametrize(("kind", "tower", "keys"), [
    ("qwen2_5_vl", QWEN, []),
    ("qwen2_5_vl", {}, []),
    ("qwen2_5_vl", QWEN | {"window_size": 56}, ["window_size"]),
    ("qwen2_5_vl", QWEN | {"fullatt_block_indexes": [7]}, ["fullatt_block_indexes"]),
    ("qwen2_5_vl", QWEN | {"fullatt_block_indexes": [-1], "depth": "many"}, []),
    ("qwen2_vl", {"window_size": 56}, []),
    ("mistral3", {"model_type": "pixtral", "rope_parameters": {"rope_theta": 10000.0}}, []),
    ("mistral3", {"model_type": "pixtral", "rope_theta": 500000.0}, ["rope_theta"]),
])  # fmt: skip
def test_keys_of_vision_towers(kind: str, tower: dict[str, Any], keys: list[str]) -> None:
    assert [key for key, _, _ in built_in.seen_otherwise({"model_type": kind, "vision_config": tower})] == keys
    assert list(built_in.seen_otherwise({"model_type": kind})) == []


def test_a_tower_is_spoken_of_where_projectors_are_wanted(prospect: Callable[..., Prospect]) -> None:
    known = prospect()
    seeing = {**known.config, "model_type": "qwen2_5_vl", "vision_config": QWEN | {"window_size": 56}}
    (said,) = built_in.look(replace(known, config=seeing))
    assert said.startswith("config.json of upstream/model says vision_config.window_size: 56. llama.cpp (")
    assert said.endswith(") has windows of 112 pixels built in, so its projector (mmproj) will not make of images what the model does.")


def test_it_is_told_before_anything_is_done(prospect: Callable[..., Prospect]) -> None:
    known = prospect()
    assert list(built_in.look(known)) == []
    (said,) = built_in.look(replace(known, config={**known.config, "hidden_act": "relu"}))
    assert isinstance(said, Remark)
    assert said.startswith("config.json of upstream/model says hidden_act: relu. llama.cpp (")
    assert said.endswith(") has silu or swish built in and GGUF no field for another, so its file will not answer like the model.")
