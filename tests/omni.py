"""Tiny random omni models as their makers release them: a language model in `thinker_config` and `thinker.`, beside one that speaks and what makes it sound."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.architectures import Make, byte_level, saved, sizes
from tests.releases import edit, read

HEARS = {"d_model": 32, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 64, "num_mel_bins": 16, "output_dim": 64}
SEES = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64}
THETA = 1_000_000.0


def _released(kind: str, *, sees: Mapping[str, Any], hears: Mapping[str, Any], speaks: Mapping[str, Any], architecture: str, **text: Any) -> Make:
    def make(out: Path) -> Path:
        ids = byte_level(out)
        own = sizes(**ids, tie_word_embeddings=False, **text) | {"rope_parameters": {"rope_type": "default", "rope_theta": THETA, "mrope_section": [2, 3, 3]}}
        thinker = {"text_config": own, "vision_config": {**SEES, **sees}, "audio_config": {**HEARS, **hears}}
        saved(f"{kind}Thinker", out, thinker, f"{kind}ThinkerForConditionalGeneration")
        weights = {f"thinker.{name.removeprefix('thinker.')}": value for name, value in load_file(out / "model.safetensors").items()}
        spoken = {f"{part}.model.layers.0.mlp.up_proj.weight": torch.ones(8, 8, dtype=torch.bfloat16) for part in speaks}
        save_file(weights | spoken, out / "model.safetensors", metadata={"format": "pt"})
        config = read(out / "config.json")
        config["text_config"] |= {"rope_theta": THETA, "rope_scaling": {"mrope_section": [2, 3, 3], "rope_type": "default", "type": "default"}}
        del config["text_config"]["rope_parameters"]
        whole = {"architectures": [architecture], "model_type": config["model_type"].removesuffix("_thinker"), "enable_audio_output": True}
        parts = {f"{part}_config": said for part, said in speaks.items()}
        (out / "config.json").write_text(json.dumps({**whole, "thinker_config": config, **parts}), encoding="utf-8")
        return out

    return make


MODELS: Mapping[str, Make] = {
    "Qwen2.5-Omni": _released(
        "Qwen2_5Omni",
        architecture="Qwen2_5OmniModel",
        sees={"fullatt_block_indexes": [1]},
        hears={},
        speaks={"talker": {"model_type": "qwen2_5_omni_talker", "hidden_size": 8}, "token2wav": {"model_type": "qwen2_5_omni_token2wav"}},
        head_dim=16,
    ),
    "Qwen3-Omni": _released(
        "Qwen3OmniMoe",
        architecture="Qwen3OmniMoeForConditionalGeneration",
        sees={"num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1]},
        hears={"downsample_hidden_size": 8},
        speaks={"talker": {"model_type": "qwen3_omni_moe_talker"}, "code2wav": {"model_type": "qwen3_omni_moe_code2wav"}},
        head_dim=16,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=64,
    ),
}


def thinker(folder: Path) -> Any:
    """The part with the language model, as transformers loads it of a whole release by the class that its makers name for that."""
    kind = {"qwen2_5_omni": "Qwen2_5Omni", "qwen3_omni_moe": "Qwen3OmniMoe"}[read(folder / "config.json")["model_type"]]
    return getattr(transformers, f"{kind}ThinkerForConditionalGeneration").from_pretrained(folder, dtype=torch.float32)


def elsewhere(folder: Path, section: str) -> Path:
    """A model whose config.json describes it as the language model of another one, which transformers does not know."""
    config = read(folder / "config.json")
    (folder / "config.json").write_text(json.dumps({"architectures": ["OtherChatModel"], "model_type": "other_chat", section: config}), encoding="utf-8")
    edit(folder / "config.json", torch_dtype="bfloat16")
    return folder
